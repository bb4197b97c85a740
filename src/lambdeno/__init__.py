"""Run Deno on AWS Lambda: three artefacts, a local Lambda, a deployer."""

__version__ = "0.1.0"
