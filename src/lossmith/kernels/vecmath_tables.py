"""The numbers of vecmath: the coefficients of its polynomials, and the errors that come of them."""

from __future__ import annotations

# Largest errors in units in the last place of the result, rounded up. Docstrings print them and
# tests/kernels/test_vecmath.py holds the functions to them: in float32 on all finite inputs, in
# float64 on random and hard ones, against 50 digits.
MAX_ULP: dict[str, dict[str, float]] = {
    "exp": {"float32": 0.94, "float64": 0.97},
    "exp_nonpositive": {"float32": 0.94, "float64": 0.91},
    "expm1": {"float32": 1.72, "float64": 2.4},
    "log": {"float32": 1.07, "float64": 1.5},
    "log1p": {"float32": 1.27, "float64": 1.55},
    "log_cosh": {"float32": 1.64, "float64": 1.8},
    "sigmoid": {"float32": 2.79, "float64": 2.86},
    "softplus": {"float32": 2.1, "float64": 2.42},
    "tanh": {"float32": 2.61, "float64": 2.68},
}

GAP_ULP = {"float32": 1.1, "float64": 1.05}
"""The same of exp_gap, which in float32 may be off by (x - m)/20 more: less than the rounding of x - m explains."""

# Coefficients, lowest power first: of q in exp(r) = 1 + r + r²·q(r) for |r| ≤ log(2)/2, of another for
# |r| ≤ log(2)/2/n with n POWERS_OF_TWO, of p in log(1 + f) = f + f²·p(f) for -1/4 ≤ f ≤ 1/2, of another for
# 0 ≤ f ≤ 1, and of p in log cosh x = x²·p(x²) for |x| ≤ 1. Origin: Remez exchange in 60 digits or more for the smallest
# relative error of expm1(r), log1p(f) and log cosh x (for exp_gap, least squares at 200 Chebyshev points of that of
# exp(r)); then one coefficient at a time is rounded to the type and the rest fitted anew, beginning with the first,
# which is exact in binary. POLYNOMIAL_ERROR has the relative errors, which the tests measure again.
# fmt: off
EXP_COEFFICIENTS: dict[str, tuple[float, ...]] = {
    "float32": (
        0.5, 0.16666549444198608, 0.04166685789823532, 0.00836596917361021,
        0.0013897863682359457,
    ),
    "float64": (
        0.5, 0.16666666666666602, 0.04166666666662004, 0.008333333333388378,
        0.0013888888920478516, 0.0001984126970933381, 2.4801516393135574e-05,
        2.7557425098280777e-06, 2.7622206324226586e-07, 2.5045888684191623e-08,
    ),
}
EXP_GAP_COEFFICIENTS: dict[str, tuple[float, ...]] = {
    "float32": (0.5, 0.1666359007358551),
    "float64": (
        0.5, 0.16666666666658692, 0.04166666661519659, 0.008333333449030832,
        0.0013889620296998171, 0.00019837769425200039,
    ),
}
LOG_COEFFICIENTS: dict[str, tuple[float, ...]] = {
    "float32": (
        -0.5, 0.33333447575569153, -0.2500009536743164, 0.1999092549085617,
        -0.16647395491600037, 0.14477701485157013, -0.13159765303134918,
        0.10463860630989075, -0.04509881138801575,
    ),
    "float64": (
        -0.5, 0.3333333333333327, -0.2500000000000189, 0.20000000000032203,
        -0.1666666666619957, 0.1428571428009353, -0.12500000038196948,
        0.11111111581875757, -0.09999998837016885, 0.09090887968431785,
        -0.08333329606317234, 0.07692820791563096, -0.07143926798461255,
        0.06660712661769233, -0.062247351252612486, 0.05891874361744719,
        -0.05778182318740101, 0.05659358272929423, -0.04721667968579209,
        0.026598013184052294, -0.007089897314887163,
    ),
}
UNIT_LOG_COEFFICIENTS: dict[str, tuple[float, ...]] = {
    "float32": (
        -0.4999993145465851, 0.3333047926425934, -0.2495829463005066,
        0.19694040715694427, -0.15351788699626923, 0.1067485436797142,
        -0.05761134624481201, 0.020177677273750305, -0.003312749555334449,
    ),
    "float64": (
        -0.4999999999999946, 0.33333333333235243, -0.2499999999368144,
        0.1999999979130342, -0.1666666249583211, 0.1428565884313109,
        -0.1249947899937417, 0.11107501336169961, -0.09980989494985922,
        0.09013050449813621, -0.08080893941721974, 0.07034793788766104,
        -0.05748845942082658, 0.04228128425195353, -0.026724091024333013,
        0.01382295703943548, -0.005534236700446186, 0.0015923107526479208,
        -0.0002909528767807159, 2.5242370051247735e-05,
    ),
}
LOG_COSH_COEFFICIENTS: dict[str, tuple[float, ...]] = {
    "float32": (
        0.5, -0.0833330973982811, 0.02221744880080223, -0.0067135002464056015,
        0.002082521328702569, -0.0005604042671620846, 8.786553371464834e-05,
    ),
    "float64": (
        0.5, -0.08333333333333194, 0.02222222222209372, -0.006746031741869176,
        0.0021869487852999242, -0.0007386022938480086, 0.0002565763355594508,
        -9.097113841886332e-05, 3.2721833432364254e-05, -1.1826975401040202e-05,
        4.191093099877194e-06, -1.3753086817162043e-06, 3.767504020186178e-07,
        -7.289837937697277e-08, 7.153069942078074e-09,
    ),
}
POWERS_OF_TWO: dict[str, tuple[float, ...]] = {
    "float32": (
        1.0, 1.0442737340927124, 1.0905077457427979, 1.1387885808944702, 1.1892070770263672, 1.2418577671051025,
        1.2968395948410034, 1.3542555570602417, 1.4142135381698608, 1.4768261909484863, 1.5422108173370361,
        1.610490322113037, 1.6817928552627563, 1.7562521696090698, 1.8340080976486206, 1.9152065515518188,
    ),
    "float64": (
        1.0, 1.0905077326652577, 1.189207115002721, 1.2968395546510096, 1.4142135623730951, 1.5422108254079407,
        1.681792830507429, 1.8340080864093424,
    ),
}
# fmt: on
POLYNOMIAL_ERROR: dict[str, dict[str, float]] = {
    "exp": {"float32": 1.42e-8, "float64": 2.5e-17},
    "exp_gap": {"float32": 4.4e-7, "float64": 2.6e-16},
    "log": {"float32": 5.0e-9, "float64": 1.6e-18},
    "unit_log": {"float32": 5.4e-9, "float64": 1.2e-17},
    "log_cosh": {"float32": 7.6e-9, "float64": 2.4e-17},
}
