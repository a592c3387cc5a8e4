"""Builds the demo's tokenizer: byte-level BPE in Qwen's format, with merges that never cut a character in two.

Merges come in two stages: first the bytes of every wanted character, then words of at most four characters,
learned on the corpus. Trained in one stage, byte pairs that straddle two characters would waste the vocabulary.
English words have merges of their own, which share no letter with those.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LONGEST_WORD = 4
LATIN_PIECES, LONGEST_LATIN = 1500, 14
MARKS = "，。！？；：、“”‘’（）《》【】…—～·￥"


def build_tokenizer(texts: Iterable[str], words: Iterable[str], size: int) -> Tokenizer:
    """A tokenizer of `size` entries for `texts`; each of `words` (the labels) becomes one token."""
    lines = list(texts)
    characters = sorted({c for line in lines for c in line} | set(common_characters()) | set(MARKS))
    pieces = [_byte_form(c) for c in characters]
    merges = list(dict.fromkeys(merge for piece in pieces for merge in _chain(piece)))
    # Words of the labels first, so that nothing learned later can take their characters away.
    merges += [merge for word in words for merge in _chain([_byte_form(c) for c in word])]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    room = size - len(alphabet) - len(set(merges)) - len(CONTROL)
    known = set(merges)
    latin = _latin_merges(lines, LATIN_PIECES)
    merges += [merge for merge in _word_merges(lines, room - len(latin)) if merge not in known] + latin
    vocabulary = {token: number for number, token in enumerate(alphabet)}
    for left, right in merges:
        vocabulary.setdefault(left + right, len(vocabulary))
    return _assemble(vocabulary, merges)


def common_characters() -> Iterator[str]:
    """The 3,755 characters of GB 2312's first level, so that rare words still split into characters."""
    for row in range(0xB0, 0xD8):
        for cell in range(0xA1, 0xFF):
            character = bytes((row, cell)).decode("gb2312", errors="ignore")
            if character:
                yield character


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "add_prefix_space": False,
        "additional_special_tokens": list(CONTROL[1:]),
        "bos_token": None,
        "chat_template": TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": CONTROL[0],
        "errors": "replace",
        "model_max_length": 2048,
        "pad_token": CONTROL[0],
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    text = json.dumps(config, ensure_ascii=False, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")


def _byte_form(text: str) -> str:
    """`text` in the printable alphabet that byte-level BPE works on."""
    [(form, _)] = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    return str(form)


def _chain(pieces: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Merges that build a whole from its pieces, from the left."""
    whole = ""
    for piece in pieces:
        if whole:
            yield whole, piece
        whole += piece


def _word_merges(lines: list[str], room: int) -> Iterator[tuple[str, str]]:
    """BPE on characters, letters only: no token joins a word to a mark, a line break or a Latin letter."""
    singles = len({c for line in lines for c in line if c.isalpha() and not c.isascii()})
    for left, right in _learned(lines, r"[\p{L}&&[^A-Za-z]]+", singles + room, LONGEST_WORD):
        yield _byte_form(left), _byte_form(right)


def _latin_merges(lines: list[str], room: int) -> list[tuple[str, str]]:
    """BPE on English words, each with the blank before it, as the splitting pattern cuts them."""
    blank = _byte_form(" ")
    pieces = [line.replace(" ", blank) for line in lines]
    return list(_learned(pieces, rf"{blank}?[A-Za-z]+", 53 + room, LONGEST_LATIN))


def _learned(lines: list[str], pattern: str, size: int, longest: int) -> Iterator[tuple[str, str]]:
    """The merges of a BPE of `size` tokens over what `pattern` finds in `lines`."""
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.NFC()
    learner.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True)
    trainer = trainers.BpeTrainer(vocab_size=size, max_token_length=longest, show_progress=False, min_frequency=20)
    learner.train_from_iterator(lines, trainer)
    yield from ((left, right) for left, right in json.loads(learner.to_str())["model"]["merges"])


def _assemble(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL])
    return tokenizer
