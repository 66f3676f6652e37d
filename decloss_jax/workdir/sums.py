"""The list of hashes that marks a checkpoint as finished and reveals damage."""

from pathlib import Path

from decloss_jax.host import files

SUMS = "SHA256SUMS"


def list_files(step_directory: Path) -> list[str]:
    """Lists the files of a step, except the list of hashes, by their relative names."""
    found = (path for path in step_directory.rglob("*") if path.is_file() and path.name != SUMS)
    return sorted(path.relative_to(step_directory).as_posix() for path in found)


def write_sums(step_directory: Path) -> None:
    """Writes the hashes of all files of a finished step, in the format of `sha256sum`."""
    lines = [f"{files.sha256(step_directory / name)}  {name}\n" for name in list_files(step_directory)]
    files.write_atomically(step_directory / SUMS, "".join(lines))


def find_damage(step_directory: Path) -> str | None:
    """Returns the damage of a step in one clause, or None if every file is intact."""
    sums = step_directory / SUMS
    if not sums.is_file():
        return "its removal or saving was interrupted"
    for path in (step_directory, *step_directory.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            return f"{path.name} is a link, a pipe or a device"
    lines = sums.read_text(errors="replace").splitlines()
    digests = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    present = list_files(step_directory)
    if unlisted := [name for name in present if name not in digests]:
        return f"{unlisted[0]} is not in {SUMS}"
    if missing := [name for name in digests if name not in present]:
        return f"{missing[0]} is missing"
    for name, digest in digests.items():
        if files.sha256(step_directory / name) != digest:
            return f"{name} has changed since it was written"
    return None
