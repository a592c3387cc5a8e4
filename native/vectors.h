// Vectors of the instruction set that this is compiled for, in the compilers' common extensions.
#ifndef VECTORS_H
#define VECTORS_H

#include <math.h>
#include <string.h>

#include "qaio.h"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif

#define INLINE static inline __attribute__((always_inline))

// Loads and stores need no alignment.
typedef float Floats __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t Words __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE Floats load(const float *from) { return *(const Floats *)from; }
INLINE void store(float *to, Floats v) { *(Floats *)to = v; }
INLINE Floats all(float value) { return (Floats){0} + value; }
INLINE Floats where(Ints mask, Floats yes, Floats no) {
    return (Floats)(((Ints)yes & mask) | ((Ints)no & ~mask));
}
INLINE Floats largest(Floats a, Floats b) { return where(a > b, a, b); }

INLINE float sum_of(Floats v) {
    float total = 0;
    for (int i = 0; i < LANES; i++) total += v[i];
    return total;
}

INLINE float largest_of(Floats v) {
    float top = v[0];
    for (int i = 1; i < LANES; i++) top = v[i] > top ? v[i] : top;
    return top;
}

// e^x within 2 units of the last place from -87 on, about 1e-38 below, NaN for NaN: x = n ln 2 + r, e^r as a polynomial
// (the first terms of its series, adjusted to |r| < 0.35: Cephes, expf), times 2^n by adding n to the exponent.
INLINE Floats exponential(Floats x) {
    const float to_whole = 12582912.0f;  // 1.5 x 2^23: what is added to it loses its fraction
    Floats bounded = where(x < -87.0f, all(-87.0f), x);
    bounded = where(bounded > 88.0f, all(88.0f), bounded);
    Floats whole = bounded * 1.44269504f + to_whole;
    Ints n = (Ints)whole - (Ints)all(to_whole);
    whole -= to_whole;
    Floats r = bounded - whole * 0.693359375f;
    r = r + whole * 2.12194440e-4f;
    Floats p = all(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + (r + 1.0f);
    return where(x == x, (Floats)((Ints)p + (n << 23)), x);
}

// x / (1 + e^-x) (SiLU: arXiv:1702.03118), times `by`.
INLINE Floats gated(Floats x, Floats by) { return x / (1.0f + exponential(-x)) * by; }

#if !defined(__AVX2__) && !defined(__ARM_NEON)
// IEEE 754 half precision by hand: numbers, denormals, infinities and NaN.
INLINE float float_of_half(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, bits = half & 0x7fff, word;
    float value;
    if (bits >= 0x7c00) {
        word = sign | 0x7f800000 | (bits & 0x3ff) << 13;
    } else if (bits >= 0x400) {
        word = sign | ((bits << 13) + 0x38000000);
    } else {
        value = (float)bits * 5.9604644775390625e-8f;  // 2^-24
        memcpy(&word, &value, 4);
        word |= sign;
    }
    memcpy(&value, &word, 4);
    return value;
}

INLINE uint16_t half_of_float(float value) {
    uint32_t word;
    memcpy(&word, &value, 4);
    uint16_t sign = (uint16_t)(word >> 16 & 0x8000);
    float size = fabsf(value);
    if (value != value) return sign | 0x7e00;
    if (size >= 65520.0f) return sign | 0x7c00;
    if (size < 6.103515625e-5f) return sign | (uint16_t)lrintf(size * 16777216.0f);  // 2^24: denormal
    word &= 0x7fffffff;
    word += 0xfff + (word >> 13 & 1);  // to the nearest, ties to even
    return sign | (uint16_t)((word - 0x38000000) >> 13);
}
#endif

INLINE Floats load_half(const uint16_t *from) {
#if defined(__AVX512F__)
    return (Floats)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
#elif defined(__AVX2__)
    return (Floats)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from));
#elif defined(__ARM_NEON)
    return (Floats)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from)));
#else
    Floats v;
    for (int i = 0; i < LANES; i++) v[i] = float_of_half(from[i]);
    return v;
#endif
}

INLINE void store_half(uint16_t *to, Floats v) {
#if defined(__AVX512F__)
    _mm256_storeu_si256((__m256i *)to, _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__AVX2__)
    _mm_storeu_si128((__m128i *)to, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__ARM_NEON)
    vst1_u16(to, vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)v)));
#else
    for (int i = 0; i < LANES; i++) to[i] = half_of_float(v[i]);
#endif
}

#endif
