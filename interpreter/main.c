/* bootstrap as one file: CPython, and the compiled program that lies in the slot (slot.h).
 *
 *   core initialisation -> import the slot's first module -> its main(folder) -> _exit(status)
 *
 * "Core" is CPython without io, codecs, encodings and import paths: 3 ms less than the whole
 * (docs/decisions.md). What a program lacks then: print, open, sys.stdout, signal handlers. An
 * uncaught exception completes the initialisation first, and so does _boot.init_main().
 *
 * Private API: PyConfig._init_main and _Py_InitializeMain. tests/test_interpreter.py holds both to
 * what is said here. https://docs.python.org/3.13/c-api/init_config.html#multi-phase-initialization-private-provisional-api
 */
#include <Python.h>
#include <limits.h>
#include <signal.h>
#include <unistd.h>

#include "encodings.h" /* made by build.py: static const struct _frozen encodings[] */
#include "slot.h"

extern PyStatus _Py_InitializeMain(void);

static void check(PyStatus status)
{
    if (PyStatus_Exception(status)) Py_ExitStatusException(status);
}

static int is_whole;

static PyObject *init_main(PyObject *self, PyObject *args)
{
    (void)self, (void)args;
    if (!is_whole) {
        is_whole = 1;
        check(_Py_InitializeMain());
    }
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"init_main", init_main, METH_NOARGS, NULL}, {0}};
static struct PyModuleDef boot = {PyModuleDef_HEAD_INIT, "_boot", NULL, -1, methods, 0, 0, 0, 0};

static PyObject *init_boot(void)
{
    return PyModule_Create(&boot);
}

/* The frozen modules: what the second half of the initialisation needs, and the program. */
static void freeze(const struct slot *slot)
{
    static struct _frozen table[SLOT_MODULES + 8];
    size_t n = 0;
    for (const struct _frozen *row = encodings; row->name; row++) table[n++] = *row;
    for (uint32_t i = 0; i < slot->count; i++) {
        const struct slot_module *module = &slot->modules[i];
        table[n++] = (struct _frozen){module->name, slot->bytes + module->start, (int)module->size, 0};
    }
    PyImport_FrozenModules = table;
}

static void configure(int argc, char **argv)
{
    PyPreConfig before;
    PyPreConfig_InitIsolatedConfig(&before);
    before.utf8_mode = 1; /* whatever the locale */
    check(Py_PreInitialize(&before));

    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    config._init_main = 0;
    config.site_import = 0;
    config.parse_argv = 0;
    config.pathconfig_warnings = 0;
    config.write_bytecode = 0;
    config.optimization_level = 2;
    config.code_debug_ranges = 0;
    config.module_search_paths_set = 1; /* none: nothing is ever looked up in the file system */
    wchar_t **paths[] = {&config.home, &config.prefix, &config.exec_prefix, &config.base_prefix,
                         &config.base_exec_prefix, &config.stdlib_dir};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) check(PyConfig_SetString(&config, paths[i], L"/"));
    wchar_t **names[] = {&config.program_name, &config.executable, &config.base_executable};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        check(PyConfig_SetString(&config, names[i], L"/proc/self/exe"));
    check(PyConfig_SetString(&config, &config.platlibdir, L"lib"));
    check(PyConfig_SetBytesArgv(&config, argc, argv));
    check(Py_InitializeFromConfig(&config));
    PyConfig_Clear(&config);
}

/* The folder of this file: /opt on Lambda, which starts /opt/bootstrap by that name. */
static PyObject *folder_of(const char *program)
{
    char path[PATH_MAX];
    const char *end = strrchr(program, '/');
    if (!end) {
        ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
        path[length > 0 ? length : 0] = 0;
        program = path;
        end = strrchr(program, '/');
    }
    return PyUnicode_DecodeUTF8(program, end ? end - program : 0, "surrogateescape");
}

static PyObject *strings(int count, char **bytes)
{
    PyObject *list = PyList_New(count);
    for (int i = 0; list && i < count; i++) {
        PyObject *text = PyUnicode_DecodeUTF8(bytes[i], strlen(bytes[i]), "surrogateescape");
        if (!text) return NULL;
        PyList_SET_ITEM(list, i, text);
    }
    return list;
}

/* The program's exit status; -1 with an exception set where it raised one. */
static int run(const struct slot *slot, int argc, char **argv)
{
    PyObject *arguments = strings(argc, argv);
    if (!arguments || PySys_SetObject("argv", arguments)) return -1;
    PyObject *program = PyImport_ImportModule(slot->modules[0].name);
    PyObject *folder = program ? folder_of(argc ? argv[0] : "") : NULL;
    PyObject *status = folder ? PyObject_CallMethod(program, "main", "O", folder) : NULL;
    return status ? (int)PyLong_AsLong(status) : -1;
}

int main(int argc, char **argv)
{
    const struct slot *slot = &app;
    signal(SIGPIPE, SIG_IGN); /* a peer that is gone is an OSError, as in any Python */
    freeze(slot);
    PyImport_AppendInittab("_boot", init_boot);
    configure(argc, argv);
    int status = run(slot, argc, argv);
    if (PyErr_Occurred()) {
        PyObject *exception = PyErr_GetRaisedException();
        Py_XDECREF(init_main(NULL, NULL));
        PyErr_SetRaisedException(exception);
        PyErr_Print();
        status = 1;
    }
    if (is_whole) Py_FinalizeEx(); /* sys.stdout may hold something */
    _exit(status); /* else there is nothing to tidy, and finalisation takes 1.1 ms */
}
