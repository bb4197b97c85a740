#include "slot.h"

#include "compiler.h" /* made by build.py from compiler.py */

const struct slot app = {
    .magic = "lambdeno-slot-1",
    .count = 1,
    .modules = {{"compiler", 0, COMPILER_SIZE}},
    .bytes = {COMPILER_CODE},
};
