"""Stands in for the entry of a managed Python runtime, which the local Lambda does not have."""

import sys

sys.exit(
    "The local Lambda runs functions of managed Python only through AWS_LAMBDA_EXEC_WRAPPER:"
    " it has the layout of AWS's runtime, but not its client"
)
