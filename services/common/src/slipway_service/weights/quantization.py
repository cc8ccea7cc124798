"""Names of quantisations: how files spell them, how many bits they take, which one a person would want."""

import re

_SIZE = r"(?:XXS|XS|XXL|XL|S|M|L|P)"
_LABEL = re.compile(
    r"(?<![A-Za-z0-9])"
    r"(?P<dynamic>UD-)?"
    r"(?P<label>"
    rf"(?:IQ|TQ|Q)[1-8]_(?:[01](?:_[48]_[48])?|K(?:_{_SIZE})?|{_SIZE}|NL|KSS|KS|KL|KT)(?:_R[48])?"  # Q4_K_M …
    r"|Q[2-6]K[SML]?"  # q4km, an old spelling of Q4_K_M
    r"|MXFP4(?:_MOE)?|NVFP4"
    r"|BF16|FP?(?:16|32)"
    r"|Q[2-8]"  # q8: said of files by hand
    r")"
    r"(?![A-Za-z0-9])",
    re.IGNORECASE,
)

_NOMINAL_BITS = {
    "F32": 32.0,
    "BF16": 16.0,
    "F16": 16.0,
    "Q8_0": 8.5,
    "Q6_K": 6.56,
    "Q5_K_M": 5.69,
    "Q5_K_S": 5.52,
    "Q5_1": 6.0,
    "Q5_0": 5.5,
    "Q4_K_M": 4.85,
    "Q4_K_S": 4.58,
    "Q4_1": 5.0,
    "Q4_0": 4.55,
    "IQ4_NL": 4.5,
    "IQ4_XS": 4.25,
    "MXFP4": 4.25,
    "MXFP4_MOE": 4.25,
    "NVFP4": 4.5,
    "Q3_K_L": 4.27,
    "Q3_K_M": 3.91,
    "Q3_K_S": 3.5,
    "IQ3_M": 3.66,
    "IQ3_S": 3.44,
    "IQ3_XS": 3.3,
    "IQ3_XXS": 3.06,
    "Q2_K": 2.96,
    "Q2_K_S": 2.75,
    "IQ2_M": 2.7,
    "IQ2_S": 2.5,
    "IQ2_XS": 2.31,
    "IQ2_XXS": 2.06,
    "TQ2_0": 2.06,
    "IQ1_M": 1.75,
    "TQ1_0": 1.69,
    "IQ1_S": 1.56,
}
"""Bits per weight of a 7 to 8 B model, as llama.cpp's `tools/quantize` tells them; the header knows better."""

_FAMILY_BITS = {
    "Q8": 8.5,
    "Q6": 6.56,
    "Q5": 5.6,
    "Q4": 4.7,
    "IQ4": 4.4,
    "Q3": 3.9,
    "IQ3": 3.3,
    "Q2": 2.9,
    "IQ2": 2.4,
    "IQ1": 1.7,
}
"""The same for labels that the table does not have, by what they begin with."""

_PREFERRED = re.findall(
    r"\S+",
    """
    Q4_K_M UD-Q4_K_XL Q4_K_L Q4_K_XL Q4_K Q4_K_S MXFP4 MXFP4_MOE IQ4_XS IQ4_NL Q4_1 Q4_0 Q4
    Q5_K_M UD-Q5_K_XL Q5_K_L Q5_K Q5_K_S Q5_1 Q5_0 Q6_K UD-Q6_K_XL Q6_K_L Q8_0 UD-Q8_K_XL Q8
    Q3_K_L UD-Q3_K_XL Q3_K_M IQ3_M BF16 F16 F32
    """,
)
_RANK = {label: rank for rank, label in enumerate(_PREFERRED)}
"""What a person who names nothing most likely wants: 4 bits done well, then more, then less, then whole weights."""


def find_label(text: str) -> tuple[str, int, int] | None:
    """The last quantisation that a file's or folder's name speaks of: its label and where it stands in `text`.

    Labels are upper case whatever the file says, `FP16` is `F16`; unsloth's `UD-` (dynamic) belongs to the label.
    """
    match = None
    for match in _LABEL.finditer(text):  # noqa: B007 -- the last one is wanted
        pass
    if match is None:
        return None
    label = match["label"].upper().replace("FP16", "F16").replace("FP32", "F32")
    if short := re.fullmatch(r"(Q\d)K([SML]?)", label):
        label = f"{short[1]}_K" + (f"_{short[2]}" if short[2] else "")
    return ("UD-" if match["dynamic"] else "") + label, match.start(), match.end()


def nominal_bits(label: str) -> float | None:
    """Bits per weight that a label stands for, roughly; None where it stands for none."""
    plain = label.removeprefix("UD-")
    if plain in _NOMINAL_BITS:
        return _NOMINAL_BITS[plain]
    return _FAMILY_BITS.get(plain.partition("_")[0])


def preference(label: str) -> float:
    """Orders labels by how likely they are wanted, the likeliest first: lower is better."""
    if label in _RANK:
        return _RANK[label]
    bits = nominal_bits(label)
    # Behind the named ones: more bits before fewer, and what is not a quantisation at all last.
    return len(_RANK) + (64 if bits is None else 32 - bits)
