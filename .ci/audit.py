"""`make audit`: known vulnerabilities of what is installed. What could not be looked up is said, and is no all-clear.

Exit status: 0 none known, 1 some known, 2 not all was looked up.
"""

from __future__ import annotations

import json
import subprocess
import sys

OURS = "qwen-allinone"


def main(program: str, folder: str) -> int:
    asked = ["--vulnerability-service", "osv", "--format", "json", "--progress-spinner", "off", "--path", folder]
    done = subprocess.run([program, *asked], capture_output=True, text=True, check=False)
    try:
        found = [package for package in json.loads(done.stdout)["dependencies"] if package["name"] != OURS]
    except (ValueError, KeyError):
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        print(f"NOT AUDITED: the data at api.osv.dev could not be read ({said[-1][:200]})")
        return 2
    left_out = [package["name"] for package in found if "skip_reason" in package]
    bad = [(package, flaw) for package in found for flaw in package.get("vulns", ())]
    for package, flaw in bad:
        mended = ", ".join(flaw["fix_versions"]) or "none yet"
        print(f"{package['name']} {package['version']}: {flaw['id']}, mended in {mended}")
    print(f"{len(found) - len(left_out)} packages looked up, {len(bad)} known vulnerabilities")
    if left_out or not found:
        print(f"NOT AUDITED: {', '.join(left_out) or 'nothing is installed there'}")
        return 2
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
