"""Forms that kernels take under the interpreter, where graphs are small."""

from plstm_graph.line_dag import plan

FORMS = {  # tiles, the numbers that one may hold, and which tiles are met by ``batch``, graphs beyond them last
    "tiles": ((4, 8), plan.WIDEST, [True, True, False]),
    "mixed": ((2, 4), plan.WIDEST, [True, True, True]),
    "recurrent": ((2, 4), 0, [True, True, True]),
}
