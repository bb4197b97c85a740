/* The slot: a program's compiled modules, in a section that build.py and lambdeno write into.
 *
 * All numbers are little-endian, which both architectures are; src/lambdeno/interpreter.py has the
 * same layout. The slot is found by its magic, which stands in the file once.
 */
#include <stdint.h>

#define SLOT_MODULES 24
#define SLOT_BYTES (192 * 1024)

struct slot_module {
    char name[24];
    uint32_t start, size; /* of its marshalled code, in bytes[] */
};

struct slot {
    char magic[16];
    uint32_t count;
    unsigned char sources[32]; /* sha256 of what the program was compiled from */
    struct slot_module modules[SLOT_MODULES];
    unsigned char bytes[SLOT_BYTES];
};

extern const struct slot app; /* in a file of its own: no compiler may take its zeros for granted */
