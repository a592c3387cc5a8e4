"""What must never be remembered: numbers of cards and papers, keys, passwords. Found by how they look."""

from __future__ import annotations

import re
import unicodedata

_OF_KEYS = r"[0-9A-Za-z_\-+/=]"
_DIGIT = "[0-9零〇一二三四五六七八九幺]"
_SECRETS = re.compile(
    "|".join(
        (
            # Numbers of cards, papers, accounts and telephones, in groups or not; a date or a price has fewer digits.
            rf"(?<![0-9A-Za-z]){_DIGIT}(?:[ \-.·]?{_DIGIT}){{8,}}[Xx]?",
            # Passports and the like: one or two letters, then digits.
            r"(?<![0-9A-Za-z])[A-Za-z]{1,2}[ \-]?\d{7,}(?![0-9A-Za-z])",
            # An IBAN, in groups of four.
            r"(?<![0-9A-Za-z])[A-Za-z]{2}\d{2}(?: ?[0-9A-Za-z]{4}){3,}",
            # Keys of well-known services, web tokens, blocks of PEM.
            r"(?<![0-9A-Za-z])(?:sk|pk|rk|ghp|gho|ghs|github_pat|glpat|xox[abprs]|hf|AKIA|ASIA|AIza)[-_]?[0-9A-Za-z_\-]{8,}",
            r"eyJ[0-9A-Za-z_\-]{8,}(?:\.[0-9A-Za-z_\-]*)*",
            r"-----BEGIN[^-]*-----.*",
            # Any long run of letters and digits mixed.
            rf"(?<!{_OF_KEYS})(?={_OF_KEYS}*\d)(?={_OF_KEYS}*[A-Za-z]){_OF_KEYS}{{16,}}",
            # What is said to be one, as far as it goes.
            r"(?:密码|口令|密钥|验证码|校验码|安全码|支付码|令牌|助记词|私钥)[^，。；！？,;!?\n]{0,20}[0-9A-Za-z][^，。；！？,;!?\n]*",
            r"(?<![0-9A-Za-z])(?:password|passwd|passcode|pin(?: code)?|cvv|cvc|secret|api[ _-]?key|token)[ \t]{0,9}"
            r"(?:is|are|was|:|=)\s{0,9}\S+",
        )
    ),
    re.DOTALL | re.IGNORECASE,
)
TAKEN_OUT = "█"


def has_secret(text: str) -> bool:
    """Whether something in `text` looks like a secret."""
    return bool(_SECRETS.search(unicodedata.normalize("NFKC", text)))


def without_secrets(text: str) -> str:
    """`text` with TAKEN_OUT in place of each secret; as it was if there are none."""
    return _SECRETS.sub(TAKEN_OUT, unicodedata.normalize("NFKC", text)) if has_secret(text) else text
