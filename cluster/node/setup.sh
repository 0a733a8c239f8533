#!/usr/bin/env bash
# Prepares a node for training: packages, the `rayprob` command, the token. cluster/*.yaml run it on every node they start.
#
# rayprob itself is not installed. Each job includes it in its working directory, so a job runs the code it was submitted
# with, and a code change does not require `ray up` (which would restart Ray and every running job).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

python -m pip install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"

# -m puts the current folder first, which in a job is the working directory that was submitted.
if ! command -v rayprob > /dev/null; then
  shim=$(dirname "$(command -v python)")/rayprob
  printf '#!/bin/sh\nexec python -m rayprob "$@"\n' > "$shim"
  chmod 755 "$shim"
fi

# Anyone who can read the token can run any code on the cluster.
install -d -m 700 ~/.ray
install -m 600 "$here/../rayprob-token/auth_token" ~/.ray/auth_token
grep -qs 'RAY_AUTH_MODE=token' ~/.bashrc || echo 'export RAY_AUTH_MODE=token' >> ~/.bashrc
