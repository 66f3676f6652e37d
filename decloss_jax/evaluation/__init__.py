"""Measuring methods on data sets: what evaluate.py does.

- `conventions`: how it is measured; `methods`: what is measured; `run`: one evaluation, from images to files
- `output`, `saved`: the folder of an evaluation as it is written, and as it is read back
- `report`: what report.html shows of saved evaluations; `comparison`: of several ones, if they compare
- `table`, `pictures`, `render`: its numbers, its pictures, and the page itself (page.html, page.css, page.js)
"""

from decloss_jax.evaluation.run import run

__all__ = ["run"]
