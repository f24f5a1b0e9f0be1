"""The paper's tables as it prints them (https://arxiv.org/abs/2306.03430, section 5), in percent.

A_w is not copied but computed from A_nat and A_adv (Eq. 23) wherever both are printed; two of the 124 cells come out otherwise,
which the notes of their tables say. Table 5 (AUC of detectors) and Figures 1 and 3 (weights) have forms of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from awnet.recipes.paper import BETAS, CIFAR10, CIFAR100, TINY

WHITE = ("fgsm", "pgd-sat", "pgd-trades", "cw-inf")
WHO_DECIDES = (
    "AW-Net and Separate-Net decide for each image; on the others here, which do not, the adaptive suite comes down to APGD on "
    "two losses (and to diversified starts, in records that list them), and AutoAttack, which has both losses and more, is "
    "stronger."
)
TITLES = {
    "fgsm": "FGSM",
    "pgd-sat": "PGD_sat",
    "pgd-trades": "PGD_trades",
    "cw-inf": "CW_inf",
    "aa": "AA",
    "pgd-sat from surrogate": "PGD_sat",
    "cw-inf from surrogate": "CW_inf",
    "adaptive-paper": "Eq. 22",
    "adaptive": "adaptive suite (ours)",
    "deep-sloth": "DeepSloth",
}


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row of a table.

    Attributes:
        label: as printed.
        system: of `awnet.recipes.paper`.
        parameters: as printed.
        clean: A_nat in percent; None where it is not printed.
        attacked: A_adv in percent, by attack.
        weighed: A_w in percent, where it is printed alone.
        data: where it is other than the table's.
        note: why we cannot run it as the paper did.
    """

    label: str
    system: str
    parameters: str = ""
    clean: float | None = None
    attacked: Mapping[str, float] = field(default_factory=dict)
    weighed: Mapping[str, float] = field(default_factory=dict)
    data: str = ""
    note: str = ""

    def a_w(self, attack: str) -> float | None:
        """A_w as printed, or by Eq. 23 from what is printed."""
        if attack in self.weighed:
            return self.weighed[attack]
        if self.clean is None or attack not in self.attacked:
            return None
        return (self.clean + self.attacked[attack]) / 2


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table.

    Attributes:
        name: as `awnet reproduce` takes it.
        title: what it compares.
        data: its data set.
        attacks: its columns, beside clean images.
        lines: its rows.
        claims: which system is said to have a higher A_w than which others; () of others: than all.
        notes: slips of the paper, and what differs here.
    """

    name: str
    title: str
    data: str
    attacks: Sequence[str]
    lines: Sequence[Line]
    claims: Sequence[tuple[str, Sequence[str]]] = ()
    notes: Sequence[str] = ()


def _rows(attacks: Sequence[str], text: str) -> tuple[Line, ...]:
    """Rows from lines of `label | system | parameters | clean | A_adv by attack ...`, "-" where nothing is printed."""
    lines = []
    for row in text.strip().splitlines():
        label, system, parameters, clean, *attacked = (cell.strip() for cell in row.split("|"))
        cells = {attack: float(cell) for attack, cell in zip(attacks, attacked, strict=True) if cell != "-"}
        printed = None if clean == "-" else float(clean)
        lines.append(Line(label=label, system=system, parameters=parameters, clean=printed, attacked=cells))
    return tuple(lines)


SURROGATE = ("pgd-sat from surrogate", "cw-inf from surrogate")
FIVE = (*WHITE, "aa")
_AWNET = (("awnet", ()),)
_TRANSFER = (
    "The paper's surrogate is the WideResNet-70-16 of Gowal et al.; at the smaller scales it is a network trained here: the "
    "WideResNet by HAT of Table 9 on CIFAR-10, the robust teacher itself on CIFAR-100. There the paper's is its teacher too, "
    "so transfer is not independent of the training."
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        Table(
            name="table1",
            title="White-box robustness on CIFAR-10",
            data=CIFAR10,
            attacks=FIVE,
            lines=_rows(
                FIVE,
                """
                ResNet-34 | resnet34 | 20.3M | 90.30 | 58.18 | 45.56 | 48.95 | 45.95 | 43.39
                ResNet-50 | resnet50 | 22.6M | 90.22 | 60.65 | 47.26 | 51.27 | 47.44 | 44.70
                WideResNet-34-8 | wrn-34-8 | 29.5M | 90.14 | 62.23 | 50.74 | 53.69 | 50.06 | 46.63
                VGG-16-BN | vgg16 | 32.2M | 86.89 | 57.49 | 44.53 | 48.46 | 44.22 | 41.17
                RepVGG-A2 | repvgg-a2 | 25.6M | 81.05 | 47.35 | 35.17 | 38.67 | 34.74 | 31.23
                AW-Net | awnet | 26.3M | 93.08 | 77.38 | 50.93 | 52.37 | 47.82 | 44.56
                """,
            ),
            claims=_AWNET,
            notes=("RepVGG-A2 under CW_inf: A_w is printed as 67.90; Eq. 23 gives 57.90.",),
        ),
        Table(
            name="table2",
            title="White-box robustness on CIFAR-100",
            data=CIFAR100,
            attacks=FIVE,
            lines=_rows(
                FIVE,
                """
                ResNet-34 | resnet34 | 20.3M | 65.69 | 33.47 | 25.85 | 27.77 | 24.67 | 21.87
                ResNet-50 | resnet50 | 22.6M | 69.59 | 33.68 | 25.02 | 27.38 | 25.36 | 20.03
                WideResNet-34-8 | wrn-34-8 | 29.5M | 60.46 | 25.67 | 20.05 | 21.70 | 18.84 | 14.41
                VGG-16-BN | vgg16 | 32.2M | 57.65 | 28.23 | 20.88 | 22.83 | 20.02 | 18.35
                RepVGG-A2 | repvgg-a2 | 25.6M | 51.44 | 24.23 | 17.90 | 19.33 | 16.79 | 15.04
                AW-Net | awnet | 26.3M | 73.98 | 52.07 | 26.47 | 27.51 | 23.92 | 17.48
                """,
            ),
            claims=_AWNET,
        ),
        Table(
            name="table3",
            title="Ablation of AW-Net's parts on CIFAR-10",
            data=CIFAR10,
            attacks=("pgd-trades", "cw-inf"),
            lines=(
                Line(
                    label="dynamic weight",
                    system="awnet-signals",
                    weighed={"pgd-trades": 68.03, "cw-inf": 66.05},
                ),
                Line(
                    label="dynamic weight, MixBN",
                    system="awnet-mixbn",
                    weighed={"pgd-trades": 67.42, "cw-inf": 65.25},
                ),
                Line(
                    label="dynamic weight, MixBN, type head",
                    system="awnet",
                    weighed={"pgd-trades": 72.73, "cw-inf": 70.45},
                ),
                Line(label="baseline (ResNet-18)", system="resnet18", weighed={"pgd-trades": 70.48, "cw-inf": 67.97}),
            ),
            claims=(("awnet", ("resnet18",)), ("awnet", ("awnet-mixbn",)), ("awnet", ("awnet-signals",))),
        ),
        Table(
            name="table4",
            title="Separate networks and AW-Net on CIFAR-10",
            data=CIFAR10,
            attacks=("pgd-trades", "cw-inf"),
            lines=_rows(
                ("pgd-trades", "cw-inf"),
                """
                Separate-Net | separate-net | | 93.30 | 50.11 | 45.35
                Separate-Net-L | separate-net-l | | 93.34 | 50.83 | 45.97
                AW-Net | awnet | | 93.08 | 52.37 | 47.82
                AW-Net-L | awnet-l | | 92.50 | 55.23 | 48.76
                """,
            ),
            claims=(("awnet", ("separate-net",)), ("awnet-l", ("separate-net-l",))),
        ),
        Table(
            name="table6",
            title="Black-box robustness on CIFAR-10: adversarial images of another network",
            data=CIFAR10,
            attacks=SURROGATE,
            lines=_rows(
                SURROGATE,
                """
                ResNet-34 | resnet34 | 20.3M | 90.30 | 67.67 | 67.30
                ResNet-50 | resnet50 | 22.6M | 90.22 | 68.31 | 68.12
                WideResNet-34-8 | wrn-34-8 | 29.5M | 90.14 | 68.40 | 67.53
                VGG-16-BN | vgg16 | 32.2M | 86.89 | 65.93 | 65.39
                RepVGG-A2 | repvgg-a2 | 25.6M | 81.05 | 62.62 | 62.41
                AW-Net | awnet | 26.3M | 93.08 | 66.93 | 66.29
                """,
            ),
            claims=_AWNET,
            notes=("RepVGG-A2 under PGD_sat: A_w is printed as 73.84; Eq. 23 gives 71.84.", _TRANSFER),
        ),
        Table(
            name="table7",
            title="Black-box robustness on CIFAR-100: adversarial images of another network",
            data=CIFAR100,
            attacks=SURROGATE,
            lines=_rows(
                SURROGATE,
                """
                ResNet-34 | resnet34 | 20.3M | 65.69 | 41.92 | 42.10
                ResNet-50 | resnet50 | 22.6M | 69.59 | 45.13 | 44.93
                WideResNet-34-8 | wrn-34-8 | 29.5M | 60.46 | 38.81 | 39.37
                VGG-16-BN | vgg16 | 32.2M | 57.65 | 38.85 | 39.21
                RepVGG-A2 | repvgg-a2 | 25.6M | 51.44 | 36.21 | 37.08
                AW-Net | awnet | 26.3M | 73.98 | 42.66 | 42.93
                """,
            ),
            claims=_AWNET,
            notes=(_TRANSFER,),
        ),
        Table(
            name="table8",
            title="Transformers and other dynamic networks on CIFAR-10",
            data=CIFAR10,
            attacks=("pgd-sat", "aa"),
            lines=_rows(
                ("pgd-sat", "aa"),
                """
                Swin-Tiny | swin-t | 27.5M | 80.71 | 49.79 | 46.36
                Swin-Small | swin-s | 48.8M | 84.46 | 50.02 | 46.17
                RDI-ResNet-38 | rdi-resnet38 | 2.7M | 83.79 | 43.28 | -
                ADVMOE | advmoe | 29.5M | 84.32 | 55.73 | 45.89
                AW-Net | awnet | 26.3M | 93.08 | 50.93 | 44.56
                """,
            ),
            claims=_AWNET,
            notes=(
                "The Swin transformers of the paper start from weights trained on ImageNet, which are not at hand: ours start "
                "from random ones. `awnet import` reads such weights, and `awnet train --init` starts from them.",
                "Parameters in millions, but for RDI-ResNet-38, whose 2.7 are megabytes: it has 0.69 million.",
                "The values of ADVMOE look like those that its own paper prints, of another training.",
            ),
        ),
        Table(
            name="table9",
            title="HAT and AW-Net on CIFAR-10",
            data=CIFAR10,
            attacks=("pgd-sat", "aa"),
            lines=_rows(
                ("pgd-sat", "aa"),
                """
                ResNet-18 + HAT | hat-resnet18 | 10.7M | 84.90 | 52.02 | 49.08
                WRN-34-10 + HAT | hat-wrn-34-10 | 46.1M | 86.12 | 54.12 | 51.75
                AW-Net | awnet | 26.3M | 93.08 | 50.93 | 44.56
                AW-Net-L | awnet-l | 38.8M | 92.50 | 52.74 | 45.78
                """,
            ),
            claims=(("awnet-l", ("hat-wrn-34-10",)), ("awnet", ("hat-resnet18",))),
        ),
        Table(
            name="table10",
            title="An attack that knows of the training loss (Eq. 22)",
            data=CIFAR10,
            attacks=("pgd-trades", "adaptive-paper", "adaptive", "deep-sloth"),
            lines=(
                Line(
                    label="AW-Net, CIFAR-10",
                    system="awnet",
                    attacked={"pgd-trades": 52.37, "adaptive-paper": 54.07, "deep-sloth": 80.46},
                ),
                Line(
                    label="AW-Net, CIFAR-100",
                    system="awnet",
                    data=CIFAR100,
                    attacked={"pgd-trades": 27.51, "adaptive-paper": 27.93},
                ),
            ),
            notes=(
                "The paper's adaptive attack is weaker than the plain one, which no attack that knows more should be. The "
                "column after it is the suite of `--attacks adaptive`, which aims at the router too.",
                "DeepSloth is not in the table: section 5.3.2 tells its number, and nothing of how it was applied to a network "
                "of one exit.",
            ),
        ),
        Table(
            name="table11",
            title="White-box robustness on Tiny-ImageNet",
            data=TINY,
            attacks=FIVE,
            lines=_rows(
                FIVE,
                """
                ResNet-34 | resnet34 | | 47.00 | 41.30 | 22.70 | 23.83 | 20.94 | 18.64
                ResNet-50 | resnet50 | | 61.08 | 23.68 | 16.25 | 18.11 | 14.82 | 10.29
                AW-Net | awnet | | 63.32 | 43.32 | 17.94 | 19.43 | 13.67 | 8.61
                """,
            ),
            claims=_AWNET,
            notes=(
                "ResNet-34 is printed with 41.30 under FGSM beside 22.70 under PGD_sat, a gap that no static network of the "
                "other tables has.",
                "Section 5.4 calls ResNet-50 the second best of Tables 1 and 2; in Table 1 that is WideResNet-34-8.",
                "At hand are 20 of the 200 classes; with all of them in the data folder the same recipes run on all.",
            ),
        ),
        Table(
            name="fig4",
            title="AW-Net with other beta, CIFAR-10 (the figure's values cannot be read from the text)",
            data=CIFAR10,
            attacks=("aa",),
            lines=tuple(
                Line(label=f"beta = {beta}", system="awnet" if beta == 3 else f"awnet-beta{beta}")
                for beta in sorted((*BETAS, 3))
            ),
            claims=(("awnet", ()),),
        ),
        Table(
            name="fig5",
            title="AW-Net by other training methods, CIFAR-10 (of the figure the text tells one number: MTARD is 2.29 ahead)",
            data=CIFAR10,
            attacks=("aa",),
            lines=(
                Line(label="PGD-AT", system="awnet-pgd-at"),
                Line(label="TRADES", system="awnet-trades"),
                Line(label="MTARD", system="awnet"),
            ),
            claims=(("awnet", ()),),
        ),
        Table(
            name="own-best",
            title="Each at its own best training, CIFAR-10 (not in the paper)",
            data=CIFAR10,
            attacks=(*WHITE, "aa", "adaptive"),
            lines=(
                Line(label="ResNet-34, MTARD", system="resnet34"),
                Line(label="ResNet-34, TRADES", system="trades-resnet34"),
                Line(label="ResNet-18, HAT", system="hat-resnet18"),
                Line(label="AW-Net, MTARD", system="awnet"),
                Line(label="AW-Net, TRADES", system="awnet-trades"),
                Line(label="AW-Net, PGD-AT", system="awnet-pgd-at"),
            ),
            claims=tuple(
                (own, ("resnet34", "trades-resnet34", "hat-resnet18"))
                for own in ("awnet", "awnet-trades", "awnet-pgd-at")
            ),
            notes=(
                "The ResNet-34 has as many parameters as the AW-Net, the ResNet-18 less than half of them.",
                WHO_DECIDES,
            ),
        ),
        Table(
            name="rivals",
            title="Others that aim at the same trade-off, CIFAR-10 (not in the paper)",
            data=CIFAR10,
            attacks=(*WHITE, "aa", "adaptive"),
            lines=(
                Line(label="OAT, lambda = 0.2", system="oat"),
                Line(label="adaptive smoothing", system="adaptive-smoothing"),
                Line(label="Separate-Net", system="separate-net"),
                Line(label="AW-Net", system="awnet"),
            ),
            claims=(("awnet", ()),),
            notes=(WHO_DECIDES,),
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class WeightFigure:
    """A figure of filter means (Fig. 1 and 3): networks against a standard one of the same architecture.

    Attributes:
        name: as `awnet reproduce` takes it.
        title: what it shows.
        layers: which convolutions, counted from 1.
        groups: for each architecture its systems, the standard one first, and how they were trained.
        data: what they were trained on.
    """

    name: str
    title: str
    layers: tuple[int, ...]
    groups: Mapping[str, Mapping[str, str]]
    data: str = CIFAR10


FIGURES: dict[str, WeightFigure] = {
    figure.name: figure
    for figure in (
        WeightFigure(
            name="fig1",
            title="Filter means of the second convolution of ResNet-18, CIFAR-10",
            layers=(2,),
            groups={
                "ResNet-18": {
                    "standard-resnet18": "standard",
                    "mart-resnet18": "MART",
                    "resnet18": "MTARD",
                    "rslad-resnet18": "RSLAD",
                }
            },
        ),
        WeightFigure(
            name="fig3",
            title="Filter means of the first and second convolution, CIFAR-10",
            layers=(1, 2),
            groups={
                "MobileNet-V2": {"mobilenet": "standard", "mobilenet-mtard": "MTARD"},
                "ResNet-50": {"standard-resnet50": "standard", "resnet50": "MTARD"},
                "WideResNet-34-8": {"standard-wrn-34-8": "standard", "wrn-34-8": "MTARD"},
            },
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class DetectorTable:
    """Table 5: AUC in percent of detectors against attacks.

    Attributes:
        name: as `awnet reproduce` takes it.
        title: what it shows.
        attacks: its columns.
        lines: for each detector of `awnet.detection.DETECTORS` its label, the system that it watches, and what is printed.
        notes: what is not said in the paper.
    """

    name: str
    title: str
    attacks: Sequence[str]
    lines: Mapping[str, tuple[str, str, Mapping[str, float]]]
    notes: Sequence[str]


TABLE5 = DetectorTable(
    name="table5",
    title="AUC of detectors of adversarial images, CIFAR-10",
    attacks=("fgsm", "pgd-trades", "cw-inf"),
    lines={
        "nnif": ("NNIF", "standard-resnet18", {"fgsm": 99.96, "pgd-trades": 98.31, "cw-inf": 99.50}),
        "lng-style": ("LNG", "standard-resnet18", {"fgsm": 99.88, "pgd-trades": 91.39, "cw-inf": 89.74}),
        "router": ("AW-Net", "awnet", {"fgsm": 99.99, "pgd-trades": 99.93, "cw-inf": 99.89}),
        "mahalanobis": ("Mahalanobis (not in the paper)", "standard-resnet18", {}),
        "lid": ("LID (not in the paper)", "standard-resnet18", {}),
        "feature-squeezing": ("feature squeezing (not in the paper)", "standard-resnet18", {}),
        "max-softmax": ("max-softmax (not in the paper)", "standard-resnet18", {}),
    },
    notes=(
        "Which network NNIF and LNG watch is not printed; here it is a standard one, as in their own papers. Each image that "
        "it classifies correctly is there once clean and once attacked, white box on the network that is watched.",
        "No code and no full text of LNG is public: ours is in its style (`awnet/detection/lng.py`).",
        "None of these attacks knows the detector. Under one that does, see `awnet detect --detectors`.",
    ),
)
