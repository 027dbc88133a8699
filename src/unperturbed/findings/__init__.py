"""Plain data for everything that examines or reports."""

from unperturbed.findings.comparisons import Claim as Claim
from unperturbed.findings.comparisons import Comparison as Comparison
from unperturbed.findings.comparisons import Decision as Decision
from unperturbed.findings.comparisons import Examined as Examined
from unperturbed.findings.comparisons import Row as Row
from unperturbed.findings.comparisons import Trend as Trend
from unperturbed.findings.findings import Distribution as Distribution
from unperturbed.findings.findings import Finding as Finding
from unperturbed.findings.findings import Line as Line
from unperturbed.findings.findings import Number as Number
from unperturbed.findings.numbers import Interval as Interval
from unperturbed.findings.numbers import Progress as Progress
from unperturbed.findings.numbers import Verdict as Verdict
from unperturbed.findings.numbers import doubted as doubted
from unperturbed.findings.numbers import silent as silent
from unperturbed.findings.results import AttackRecord as AttackRecord
from unperturbed.findings.results import GateRecord as GateRecord
from unperturbed.findings.results import Outcome as Outcome
from unperturbed.findings.results import Result as Result
from unperturbed.findings.results import Transfer as Transfer
