"""On models that route (`awnet.models.model.Deciding`), by somebody who knows that they do (`awnet.attacks.adaptive`).

Most climb in two legs, the first of `steps`, the second of `then`, towards each of the `targets` likeliest other classes and
`restarts` times each; `side` is where they push the decision. To steer a model that does not decide is a `Mistake`.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

from torch import Tensor, nn

from awnet.attacks.adaptive.constrained import orthogonal as orthogonal_of
from awnet.attacks.adaptive.constrained import selective as selective_of
from awnet.attacks.adaptive.constrained import stay as stay_of
from awnet.attacks.adaptive.evade import evasions
from awnet.attacks.adaptive.joint import joint as joint_of
from awnet.attacks.adaptive.paper import PaperAdaptive
from awnet.attacks.adaptive.parts import expert_only as expert_only_of
from awnet.attacks.adaptive.parts import router_only as router_only_of
from awnet.attacks.adaptive.steer import Side, Steer
from awnet.attacks.adaptive.suite import adaptive_suite
from awnet.attacks.adaptive.warm_start import small as small_of
from awnet.attacks.adaptive.warm_start import warm as warm_of
from awnet.attacks.adaptive.weigh import Weigh
from awnet.attacks.functions.beside import beside
from awnet.attacks.functions.run import run
from awnet.attacks.inputs import threat_model
from awnet.errors import Mistake, unknown
from awnet.models.model import Deciding, forms_of
from awnet.types import Images


def adaptive(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float = 8 / 255,
    norm: str = "Linf",
    seed: int = 0,
    batch_size: int | None = None,
) -> Images:
    """Every attack on models that route (`awnet.attacks.adaptive`), each on the images that still stand.

    One of them begins with the scales held at their mean over clean images; for that give
    `awnet.evaluation.modulation.with_means(model, images)`, as evaluations do.
    """
    suite = adaptive_suite(threat_model(norm, eps), forms_of(model))
    return run(suite, model, x, y, seed=seed, batch_size=batch_size)


def adaptive_paper(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    teacher: nn.Module | str | None = None,
    through_teacher: bool = False,
    eps: float = 8 / 255,
    norm: str = "Linf",
    steps: int = 20,
    step_size: float = 0.003 * 255 / 8,
    type_weight: float = 1.0,
    alpha: float = 0.5,
    tau: float = 1.0,
    seed: int = 0,
    batch_size: int | None = None,
) -> Images:
    """The AW-Net paper's own adaptive attack, PGD on Eq. 22 (`awnet.attacks.adaptive.paper`); of a model that does not decide
    there is no L_type.

    Args:
        model, x, y, eps, norm, seed, batch_size: as everywhere here.
        teacher: T_adv, left as it was; or the name of one, a checkpoint, `package.module:attribute` or `timm:NAME`. Without
            one its term is left out.
        through_teacher: whether the gradient flows through T_adv(x_adv) too.
        steps, step_size: as of `pgd`.
        type_weight: of L_type.
        alpha, tau: a_adv and the temperature of the teacher's term.

    Raises:
        Mistake: as `run` does; or the teacher does not fit.
    """
    ball = threat_model(norm, eps)
    with nullcontext("") if teacher is None else beside(teacher, "teacher", model, x, y) as name:
        attack = PaperAdaptive(
            threat=ball,
            steps=steps,
            step_size=step_size,
            type_weight=type_weight,
            teacher=name,
            alpha=alpha,
            tau=tau,
            through_teacher=through_teacher,
        )
        return run(attack, model, x, y, seed=seed, batch_size=batch_size)


def joint(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    side: Side = "clean",
    eps: float = 8 / 255,
    norm: str = "Linf",
    steps: int = 50,
    then: int = 50,
    targets: int = 3,
    restarts: int = 1,
    seed: int = 0,
    batch_size: int | None = None,
) -> Images:
    """The class and the decision at once (`awnet.attacks.adaptive.joint`)."""
    attack = joint_of(threat_model(norm, eps), side)
    attack = replace(attack, steps=steps, then=then, targets=targets, restarts=restarts)
    return _steered(attack, model, x, y, seed=seed, batch_size=batch_size)


def orthogonal(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    side: Side = "clean",
    eps: float = 8 / 255,
    norm: str = "Linf",
    steps: int = 50,
    then: int = 50,
    targets: int = 3,
    restarts: int = 1,
    seed: int = 0,
    batch_size: int | None = None,
) -> Images:
    """Orthogonal PGD: class first, then decision, neither undoing the other (`awnet.attacks.adaptive.constrained`)."""
    attack = orthogonal_of(threat_model(norm, eps), side)
    attack = replace(attack, steps=steps, then=then, targets=targets, restarts=restarts)
    return _steered(attack, model, x, y, seed=seed, batch_size=batch_size)


def selective(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    side: Side = "clean",
    eps: float = 8 / 255,
    norm: str = "Linf",
    steps: int = 50,
    then: int = 50,
    targets: int = 3,
    restarts: int = 1,
    seed: int = 0,
    batch_size: int | None = None,
) -> Images:
    """Selective PGD: the class first, then the decision (`awnet.attacks.adaptive.constrained`)."""
    attack = selective_of(threat_model(norm, eps), side)
    attack = replace(attack, steps=steps, then=then, targets=targets, restarts=restarts)
    return _steered(attack, model, x, y, seed=seed, batch_size=batch_size)


def stay(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    side: Side = "clean",
    eps: float = 8 / 255,
    norm: str = "Linf",
    steps: int = 50,
    then: int = 50,
    targets: int = 3,
    restarts: int = 1,
    seed: int = 0,
    batch_size: int | None = None,
) -> Images:
    """The class, as long as the decision stays on that side (`awnet.attacks.adaptive.constrained`)."""
    attack = stay_of(threat_model(norm, eps), side)
    attack = replace(attack, steps=steps, then=then, targets=targets, restarts=restarts)
    return _steered(attack, model, x, y, seed=seed, batch_size=batch_size)


def warm(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    form: str,
    eps: float = 8 / 255,
    norm: str = "Linf",
    steps: int = 50,
    then: int = 50,
    targets: int = 3,
    restarts: int = 1,
    seed: int = 0,
    batch_size: int | None = None,
) -> Images:
    """From the worst point of the model with its decision frozen (`awnet.attacks.adaptive.warm_start`).

    `form` is one of the model's own `forms`, or "still", in which the decision is the one on the image before the attack.
    """
    if isinstance(model, Deciding) and form not in (forms := (*model.forms, "still")):
        raise unknown("form of this model", form, forms)
    attack = warm_of(threat_model(norm, eps), form)
    attack = replace(attack, steps=steps, then=then, targets=targets, restarts=restarts)
    return _steered(attack, model, x, y, seed=seed, batch_size=batch_size)


def small(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    reach: float = 1 / 2,
    eps: float = 8 / 255,
    norm: str = "Linf",
    steps: int = 50,
    then: int = 50,
    targets: int = 3,
    restarts: int = 1,
    seed: int = 0,
    batch_size: int | None = None,
) -> Images:
    """From the worst point of a ball of radius reach * eps (`awnet.attacks.adaptive.warm_start`)."""
    attack = small_of(threat_model(norm, eps), reach)
    attack = replace(attack, steps=steps, then=then, targets=targets, restarts=restarts)
    return _steered(attack, model, x, y, seed=seed, batch_size=batch_size)


def expert_only(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float = 8 / 255,
    norm: str = "Linf",
    steps: int = 50,
    then: int = 50,
    targets: int = 3,
    restarts: int = 1,
    seed: int = 0,
    batch_size: int | None = None,
) -> Images:
    """What classifies, under the decision on the clean image (`awnet.attacks.adaptive.parts`)."""
    attack = expert_only_of(threat_model(norm, eps))
    attack = replace(attack, steps=steps, then=then, targets=targets, restarts=restarts)
    return _steered(attack, model, x, y, seed=seed, batch_size=batch_size)


def router_only(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    side: Side = "clean",
    eps: float = 8 / 255,
    norm: str = "Linf",
    steps: int = 50,
    then: int = 50,
    targets: int = 3,
    restarts: int = 1,
    seed: int = 0,
    batch_size: int | None = None,
) -> Images:
    """The decision alone, whatever becomes of the class (`awnet.attacks.adaptive.parts`)."""
    attack = router_only_of(threat_model(norm, eps), side)
    attack = replace(attack, steps=steps, then=then, targets=targets, restarts=restarts)
    return _steered(attack, model, x, y, seed=seed, batch_size=batch_size)


def evade(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    way: Weigh = "sum",
    caught: float = 0.0,
    eps: float = 8 / 255,
    norm: str = "Linf",
    steps: int = 50,
    then: int = 50,
    targets: int = 3,
    restarts: int = 1,
    seed: int = 0,
    batch_size: int | None = None,
) -> Images:
    """Misclassified, and taken for clean all the same (`awnet.attacks.adaptive.evade`).

    An image is caught at log-odds of clean up to `caught`; `way` is how class and decision are weighed, "sum", "orthogonal",
    "selective" or "stay". Ends at the first image that is both.
    """
    ways = evasions(threat_model(norm, eps), caught)
    if f"evade-{way}" not in ways:
        raise unknown("way to evade", f"evade-{way}", ways)
    attack = ways[f"evade-{way}"]
    attack = replace(attack, steps=steps, then=then, targets=targets, restarts=restarts)
    return _steered(attack, model, x, y, seed=seed, batch_size=batch_size)


def _steered(attack: Steer, model: nn.Module, x: Tensor, y: Tensor, *, seed: int, batch_size: int | None) -> Images:
    # the engine would end after one look and give the images back, which look robust then
    if isinstance(model, nn.Module) and not isinstance(model, Deciding):
        raise Mistake(
            f"expected a model that decides (awnet.models.model.Deciding), got {type(model).__name__}, which cannot be "
            "steered; attack it with apgd"
        )
    return run(attack, model, x, y, seed=seed, batch_size=batch_size)
