"""Evaluates methods on data sets, for evaluate.py and `report`.

- `conventions`: measurement conventions
- `methods`: bicubic and the networks to measure
- `run`: one evaluation, from images to files
- `output`, `saved`: write the folder of an evaluation, and read it back
- `report`, `comparison`: the content of report.html, for one evaluation and for several comparable ones
- `table`, `pictures`, `render`: its numbers, its pictures, and the page (page.html, page.css, page.js)
"""

from decloss_jax.evaluation.run import run

__all__ = ["run"]
