"""`python -m deploy.monitoring`: write the alerts of `rules.yaml` as the PrometheusRule of the Kubernetes component.

Kustomize can neither wrap a file of another kind nor read one outside of its folder, so the copy is made here.
"""

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
RULES = FOLDER / "rules.yaml"
PROMETHEUS_RULE = FOLDER.parent / "kubernetes" / "components" / "monitoring" / "rules.yaml"

HEAD = """\
# Written by `python -m deploy.monitoring` from deploy/monitoring/rules.yaml. Change that one, and run it again.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: kanikojobs
spec:
"""


def prometheus_rule() -> str:
    """The object for the Prometheus operator, with the rules as they are, comments included."""
    _, groups, rest = RULES.read_text().partition("groups:\n")
    return HEAD + "".join(f"  {line}" if line.strip() else line for line in (groups + rest).splitlines(keepends=True))


if __name__ == "__main__":
    PROMETHEUS_RULE.write_text(prometheus_rule())
