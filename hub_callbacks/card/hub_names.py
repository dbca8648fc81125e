"""The names that the Hub knows: repositories, licences and languages."""

from __future__ import annotations

import difflib
import re
from typing import Any, TypeGuard


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


LICENSES = _words(
    """
    afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m
    bigscience-bloom-rail-1.0 bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0
    c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0
    cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0
    cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m
    deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2
    fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0 grok2-community h-research
    intel-research isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4
    lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openmdw-1.0 openmdw-1.1 openrail openrail++ osl-3.0
    other pddl postgresql unknown unlicense wtfpl zlib
    """
)
"""https://huggingface.co/docs/hub/repositories-licenses; the Hub adds some each year."""

_TWO_LETTERS = _words(
    """
    aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz
    ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik
    io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml
    mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd
    se sg sh si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve
    vi vo wa wo xh yi yo za zh zu
    """
)
"""ISO 639-1."""
_SPECIAL_LANGUAGES = frozenset({"code", "multilingual"})
_LANGUAGE_NAMES = {
    "arabic": "ar",
    "chinese": "zh",
    "dutch": "nl",
    "english": "en",
    "french": "fr",
    "german": "de",
    "hindi": "hi",
    "italian": "it",
    "japanese": "ja",
    "korean": "ko",
    "portuguese": "pt",
    "russian": "ru",
    "spanish": "es",
}

_REPO_ID = re.compile(r"(?:[\w.-]{1,96}/)?[\w.-]{1,96}", re.ASCII)


def is_repo_id(name: Any) -> TypeGuard[str]:
    """Whether `name` has the form of a repository on the Hub, by the rules of `validate_repo_id`.

    A relative path such as `runs/final` has that form too: only a look at the disk tells the two apart.
    """
    if not isinstance(name, str) or not _REPO_ID.fullmatch(name) or len(name) > 96:
        return False
    parts = name.split("/")
    if any(part in (".", "..") or part[0] in "-." or part[-1] in "-." for part in parts):
        return False
    return "--" not in name and ".." not in name and not name.endswith(".git")


def license_id(name: str) -> tuple[str | None, str | None]:
    """The Hub's identifier for a licence that a user named, and what is wrong with the name.

    A spelling such as `"Apache 2.0"` is put right. An identifier that this list does not have is kept, for
    the Hub may know it by now; one that cannot be an identifier is not.
    """
    spelled = re.sub(r"[\s_]+", "-", name.strip().lower()).removesuffix("-license")
    for candidate in (name.strip().lower(), spelled):
        if candidate in LICENSES:
            return candidate, None
    near = difflib.get_close_matches(spelled, sorted(LICENSES), n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    problem = (
        f"The Hub may not know the licence {name!r}.{hint} See "
        f"https://huggingface.co/docs/hub/repositories-licenses, or use 'other' with a license_name."
    )
    return (spelled if re.fullmatch(r"[a-z0-9][a-z0-9.+-]{0,60}", spelled) else None), problem


def language_id(name: str) -> tuple[str | None, str | None]:
    """The Hub's code for a language that a user named, and what is wrong with the name.

    Two letters of ISO 639-1, three letters of ISO 639-2 or -3, `"code"` or `"multilingual"`. What is none of
    these makes the Hub refuse the card, so it is left out.
    """
    code = name.strip().lower()
    code = _LANGUAGE_NAMES.get(code, code)
    if code in _TWO_LETTERS or code in _SPECIAL_LANGUAGES or re.fullmatch(r"[a-z]{3}", code):
        return code, None
    start = re.split(r"[-_]", code)[0]
    if start in _TWO_LETTERS:
        return start, f"The Hub takes {start!r} for the language {name!r}: a code without a region."
    return None, (
        f"The Hub does not know the language {name!r}, so it is left out of the card: a code of ISO 639 is "
        f"needed, such as 'en' or 'zh'."
    )
