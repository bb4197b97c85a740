"""What is deployed: desired state, actual state, and the steps from one to the other.

lambdeno.toml + dist/ ─ desired.wanted ─► Desired ┐
                                                  ├─ plan.plan ─► [Step, …] ─ apply ─► AWS
AWS ────────────────── actual.read ─────► Actual  ┘
"""

from lambdeno.deployment.actual import Actual, read
from lambdeno.deployment.changes import Change
from lambdeno.deployment.desired import Artefact, Desired, wanted
from lambdeno.deployment.plan import plan
from lambdeno.deployment.step import Progress, Step

__all__ = ["Actual", "Artefact", "Change", "Desired", "Progress", "Step", "plan", "read", "wanted"]
