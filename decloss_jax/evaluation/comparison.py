"""One page for several evaluations, for `python -m decloss_jax report` and `reproduce`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from decloss_jax import checks
from decloss_jax.data.pairs import ImagePair
from decloss_jax.evaluation.methods import own_names
from decloss_jax.evaluation.report import datasets_of, write_report
from decloss_jax.evaluation.run import open_sets, pairs_by_name
from decloss_jax.evaluation.saved import Evaluation, read_evaluation
from decloss_jax.host import console

LONGEST_FACT = 80  # characters in an error


def write_comparison(
    folders: Sequence[Path],
    path: Path,
    *,
    roots: Sequence[str] = (),
    field: str = "--data",
    names: Sequence[str] = (),
) -> None:
    """Writes one page for all evaluations.

    Args:
        folders: folders with the evaluation of one method each.
        path: the page to write.
        roots: folders of the data sets; by default those recorded in the evaluations.
        field: the name of `roots` in errors.
        names: the names of the methods; by default the saved ones. Equal names are numbered.

    Raises:
        UserError: a damaged file, evaluations that are not comparable, or roots of other data sets.
    """
    evaluations = [read_evaluation(folder) for folder in folders]
    unique = own_names(names or [e.method for e in evaluations])
    evaluations = [replace(e, method=name) for e, name in zip(evaluations, unique, strict=True)]
    check_comparable(evaluations)
    write_report(evaluations, find_pairs(evaluations, roots, field), path)


def check_comparable(evaluations: Sequence[Evaluation]) -> None:
    """Raises `UserError` for the first fact that makes two evaluations incomparable."""
    seen: dict[str, tuple[str, Path]] = {}
    for e in evaluations:
        for fact, value in facts_of(e).items():
            expected, folder = seen.setdefault(fact, (value, e.folder))
            checks.check(
                value == expected,
                str(e.folder),
                expected=f"{fact} {expected[:LONGEST_FACT]!r}, as in {folder}",
                got=repr(value[:LONGEST_FACT]),
                remedy="their numbers are not comparable: report them separately, or evaluate both alike",
            )


def facts_of(evaluation: Evaluation) -> dict[str, str]:
    """Lists the facts that must be equal if two evaluations have them."""
    facts = {f"conventions: {name}": text for name, text in evaluation.conventions.items()}
    facts |= {f"weights of {name}": sha256 for name, sha256 in evaluation.metric_weights.items()}
    for name, of_set in evaluation.datasets.items():
        facts[f"LR images of {name}"] = of_set.low
        facts[f"images of {name}"] = f"{len(of_set.rows)}: {', '.join(sorted(of_set.rows))}"
    return facts


def find_pairs(
    evaluations: Sequence[Evaluation], roots: Sequence[str], field: str
) -> dict[str, dict[str, ImagePair]]:
    """Finds the images of the data sets in `roots`, or in the folders recorded in the evaluations.

    A recorded folder that no longer exists is skipped with a message; each of `roots` must exist. A message
    names every recorded folder in use: a stranger's evaluation may name any folder, and the page shows its
    images.
    """
    scale, wanted = evaluations[0].scale, datasets_of(evaluations)
    sets = open_sets(roots, scale, field) if roots else []
    foreign = [each.name for each in sets if each.name not in wanted]
    checks.check(
        not foreign,
        field,
        expected=f"folders of the data sets {', '.join(wanted)}",
        got=", ".join(foreign),
        remedy="leave it out, or give the folder the name of the data set",
    )
    for name in [name for name in wanted if name not in [each.name for each in sets]]:
        for root in dict.fromkeys(e.datasets[name].root for e in evaluations if name in e.datasets):
            try:
                sets += [replace(each, name=name) for each in open_sets([root], scale, f"folder of {name}")]
                console.say(f"HR images of {name}: {root}")
                break
            except (ValueError, OSError, RuntimeError) as error:  # the text may not be a path
                console.say(f"no HR images of {name}: {error}")
    return pairs_by_name(sets)
