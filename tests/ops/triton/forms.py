"""Forms that kernels take under the interpreter, where graphs are small."""

from plstm_graph.line_dag import plan

FORMS = {  # tiles, the numbers that one may hold, which tiles are met by ``batch``, graphs beyond them last, and NARROW
    "tiles": ((4, 8), plan.WIDEST, [True, True, False], 0),
    "mixed": ((2, 4), plan.WIDEST, [True, True, True], 0),
    "recurrent": ((2, 4), 0, [True, True, True], 0),
    "deep": ((2, 4), 0, [True, True, True], 100),
}
