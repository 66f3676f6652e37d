"""The archives in which DIV2K is published, with their sizes and hashes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Archive:
    """A published .zip file: name, size in bytes, SHA-256."""

    name: str
    size: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.name} ({self.size:,} bytes)"


# From tensorflow_datasets 4.9.10, datasets/div2k/checksums.tsv. Keys: split, "hr" or the scale of LR images.
ARCHIVES: dict[tuple[str, str | int], Archive] = {
    ("train", "hr"): Archive(
        "DIV2K_train_HR.zip",
        3_530_603_713,
        "9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335",
    ),
    ("train", 2): Archive(
        "DIV2K_train_LR_bicubic_X2.zip",
        925_390_592,
        "a53a424317575838dadce4bcd97cf7b744d6855f43740ed5f0245af3cf4bd850",
    ),
    ("train", 3): Archive(
        "DIV2K_train_LR_bicubic_X3.zip",
        427_847_282,
        "ad5c8e5507e2765823d3c2c5bd0934842efcd487c5370604c224090898b3163a",
    ),
    ("train", 4): Archive(
        "DIV2K_train_LR_bicubic_X4.zip",
        246_914_039,
        "f006b837f4eb52b82909aa01478e6d6d199eefce932179491d0c9dbb706dde3a",
    ),
    ("validation", "hr"): Archive(
        "DIV2K_valid_HR.zip",
        448_993_893,
        "20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc",
    ),
    ("validation", 2): Archive(
        "DIV2K_valid_LR_bicubic_X2.zip",
        117_763_600,
        "60eed9875c697df51204aa579e2a699e1d5215095788a097ff54dd17e2664d57",
    ),
    ("validation", 3): Archive(
        "DIV2K_valid_LR_bicubic_X3.zip",
        54_513_392,
        "04b9a2ed3b4a0715d3924d3ae8514830c3328fac8d30512ce716d6f419e052a3",
    ),
    ("validation", 4): Archive(
        "DIV2K_valid_LR_bicubic_X4.zip",
        31_505_881,
        "a50a5d1c4b88de4e8d300d8fb2b904c52fe93b2b298a4899697760d7cbb6d553",
    ),
}
