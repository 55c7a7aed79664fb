"""The law R = -a·exp(H) + b as an instrument: fit, doubt, forecast, compare.

R is accuracy, H policy entropy in nats, b - a the ceiling. numpy only; importing this never imports torch.

    law = fit(entropy, accuracy, unit="fraction")              a, b, ceiling and their intervals
    doubt = diagnose(entropy, accuracy, unit="fraction")       curvature, a bend, a drift at equal entropy
    others = rivals(entropy, accuracy, unit="fraction")        beside curves linear in H, in ln H, and a power
    ahead = forecast(step, entropy, accuracy, num_steps=160, fraction=0.3, unit="fraction")
    scored = backtest(step, entropy, accuracy, num_steps=160, unit="fraction")
    second = two_ceilings(law, fit_saturating(compute, accuracy, unit="fraction"))
    larger = fit_sizes(num_parameters, a, b, unit="fraction").at(32e9)
    same = shared_curve({"GRPO": runs, "RLOO": other_runs}, unit="fraction")

Source: arXiv 2505.22617, section 2.
"""

from covent.law.backtest import Backtest, PooledOrigin, backtest, pooled
from covent.law.curve import accuracy, ceiling, entropy_at
from covent.law.decay import EntropyDecay, fit_decay
from covent.law.diagnostics import Diagnostics, diagnose
from covent.law.fit import LawFit, LineFit, fit, fit_line
from covent.law.forecast import Forecast, Prediction, forecast
from covent.law.live import Forecaster
from covent.law.rivals import Rivals, rivals
from covent.law.robust import RobustFit, fit_robust
from covent.law.saturating import SaturatingFit, TwoCeilings, fit_saturating, two_ceilings
from covent.law.scaling import SizePrediction, SizeScaling, fit_sizes
from covent.law.series import Unit
from covent.law.shared import SharedCurve, shared_curve

__all__ = [
    "Backtest",
    "Diagnostics",
    "EntropyDecay",
    "Forecast",
    "Forecaster",
    "LawFit",
    "LineFit",
    "PooledOrigin",
    "Prediction",
    "Rivals",
    "RobustFit",
    "SaturatingFit",
    "SharedCurve",
    "SizePrediction",
    "SizeScaling",
    "TwoCeilings",
    "Unit",
    "accuracy",
    "backtest",
    "ceiling",
    "diagnose",
    "entropy_at",
    "fit",
    "fit_decay",
    "fit_line",
    "fit_robust",
    "fit_saturating",
    "fit_sizes",
    "forecast",
    "pooled",
    "rivals",
    "shared_curve",
    "two_ceilings",
]
