"""A kit for other people's code: does this attack, or this model, do what evaluations rest on?

from awnet.conformance import assert_conforms, check_attack, check_model
assert_conforms(check_attack(lambda model, x, y, eps: my_attack(model, x, y, eps)))
"""

from awnet.conformance.attack import check_attack
from awnet.conformance.finding import Finding, assert_conforms
from awnet.conformance.model import check_model

__all__ = ["Finding", "assert_conforms", "check_attack", "check_model"]
