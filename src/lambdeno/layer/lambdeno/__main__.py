"""What the interpreter is given: too short to be worth compiling ahead, which all else is."""

import sys

sys.path.insert(0, sys.argv[1] + "/lambdeno")

import bootstrap

sys.exit(bootstrap.main(sys.argv[1]))
