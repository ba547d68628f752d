/*
 * Stands in for libnvidia-ml.so.1, so that the real nvidia-ml-py runs on a machine without a GPU.
 *
 * What it plays is told by MTPBENCH_FAKE_NVML, words with a number each, in any order:
 *   gpus N        that many GPUs (2)              watts W       of the first; each next one draws 100 W more (500)
 *   module W      what a module draws besides     update_ms U   the counter and power move this often (20)
 *   name X        X_X becomes "NVIDIA X X"        scale S       the counter counts S times what power says (1)
 *   hopper G      GPU G alone is named a GH200    reasons M     the mask of clock-event reasons (4: power cap)
 *   slow_ms M     every reading of a GPU takes M milliseconds
 *   mig_of G      GPU G alone is divided by MIG   zero G        GPU G alone draws nothing
 *   mig 1 | no_counter 1 | no_instant 1 | no_power 1 | no_gpu_scope 1 | no_module_scope 1
 * and, T milliseconds after nvmlInit, for GPU G:
 *   at T lost G | at T reset G | at T freeze G | at T swap G
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OK = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, GPU_IS_LOST = 15 };
enum { ENERGY = 83, POWER_AVERAGE = 185, POWER_INSTANT = 186, SCOPE_GPU = 0, SCOPE_MODULE = 1 };
enum { MOST_GPUS = 16, NEVER = -1 };

struct field_value {
    unsigned field, scope;
    long long timestamp_us, latency_us;
    unsigned type;
    int status;
    union { double real; unsigned small; unsigned long long large; } value;
};

struct gpu { int index; double lost_s, reset_s, freeze_s, swap_s; };

static struct gpu gpus[MOST_GPUS];
static int gpu_count;
static double begun_s, first_watts, module_watts, update_s, scale;
static unsigned clock_reasons = 4; /* the software power cap */
static int slow_ms, mig_of = NEVER, zero = NEVER;
static int hopper = NEVER, mig, no_counter, no_instant, no_power, no_gpu_scope, no_module_scope;
static char name[64];

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec + now.tv_nsec * 1e-9;
}

static double since_init(void) { return seconds(CLOCK_MONOTONIC) - begun_s; }

static int after(double moment_s) { return moment_s != NEVER && since_init() >= moment_s; }

static double draw(const struct gpu *gpu) { return gpu->index == zero ? 0 : first_watts + 100 * gpu->index; }

/* The counter and power stand still between two updates, and for good once they are frozen. */
static double counted_until(const struct gpu *gpu) {
    double now = since_init();
    if (after(gpu->freeze_s)) now = gpu->freeze_s;
    return update_s > 0 ? (long long)(now / update_s) * update_s : now;
}

static void plan_fault(double moment_s, const char *fault, int index) {
    struct gpu *gpu = &gpus[index % MOST_GPUS];
    if (!strcmp(fault, "lost")) gpu->lost_s = moment_s;
    if (!strcmp(fault, "reset")) gpu->reset_s = moment_s;
    if (!strcmp(fault, "freeze")) gpu->freeze_s = moment_s;
    if (!strcmp(fault, "swap")) gpu->swap_s = moment_s;
}

static void set(const char *word, const char *value) {
    double number = atof(value);
    if (!strcmp(word, "gpus")) gpu_count = number;
    if (!strcmp(word, "watts")) first_watts = number;
    if (!strcmp(word, "module")) module_watts = number;
    if (!strcmp(word, "update_ms")) update_s = number / 1e3;
    if (!strcmp(word, "scale")) scale = number;
    if (!strcmp(word, "mig")) mig = number;
    if (!strcmp(word, "slow_ms")) slow_ms = number;
    if (!strcmp(word, "mig_of")) mig_of = number;
    if (!strcmp(word, "zero")) zero = number;
    if (!strcmp(word, "reasons")) clock_reasons = number;
    if (!strcmp(word, "hopper")) hopper = number;
    if (!strcmp(word, "no_counter")) no_counter = number;
    if (!strcmp(word, "no_instant")) no_instant = number;
    if (!strcmp(word, "no_power")) no_power = number;
    if (!strcmp(word, "no_gpu_scope")) no_gpu_scope = number;
    if (!strcmp(word, "no_module_scope")) no_module_scope = number;
    if (!strcmp(word, "name")) {
        snprintf(name, sizeof name, "NVIDIA %s", value);
        for (char *c = name; *c; c++) if (*c == '_') *c = ' ';
    }
}

int nvmlInit_v2(void) {
    const char *told = getenv("MTPBENCH_FAKE_NVML");
    char *text = strdup(told ? told : ""), *rest, *word = strtok_r(text, " ", &rest);
    gpu_count = 2, first_watts = 500, module_watts = 150, update_s = 0.02, scale = 1;
    strcpy(name, "NVIDIA H200");
    for (int i = 0; i < MOST_GPUS; i++) gpus[i] = (struct gpu){i, NEVER, NEVER, NEVER, NEVER};
    for (; word; word = strtok_r(NULL, " ", &rest)) {
        char *value = strtok_r(NULL, " ", &rest);
        if (!value) break;
        if (strcmp(word, "at")) { set(word, value); continue; }
        char *fault = strtok_r(NULL, " ", &rest), *index = strtok_r(NULL, " ", &rest);
        if (index) plan_fault(atof(value) / 1e3, fault, atoi(index));
    }
    free(text);
    begun_s = seconds(CLOCK_MONOTONIC);
    return OK;
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; return nvmlInit_v2(); }

int nvmlShutdown(void) { return OK; }

const char *nvmlErrorString(int status) {
    return status == NOT_SUPPORTED ? "Not Supported" : status == GPU_IS_LOST ? "GPU is lost"
         : status == NOT_FOUND ? "Not Found" : "Invalid Argument";
}

int nvmlSystemGetDriverVersion(char *version, unsigned length) {
    snprintf(version, length, "999.1");
    return OK;
}

int nvmlDeviceGetCount_v2(unsigned *count) { *count = gpu_count; return OK; }

static void write_uuid(const struct gpu *gpu, char *text, unsigned size) {
    snprintf(text, size, "GPU-00000000-0000-0000-%04d-%012d", after(gpu->swap_s) ? 1 : 0, gpu->index);
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct gpu **gpu) {
    if (index >= (unsigned)gpu_count) return INVALID_ARGUMENT;
    *gpu = &gpus[index];
    return OK;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, struct gpu **gpu) {
    for (int i = 0; i < gpu_count; i++) {
        char own[80];
        write_uuid(&gpus[i], own, sizeof own);
        if (!strcmp(own, uuid)) { *gpu = &gpus[i]; return OK; }
    }
    return NOT_FOUND;
}

int nvmlDeviceGetName(const struct gpu *gpu, char *text, unsigned size) {
    snprintf(text, size, "%s", gpu->index == hopper ? "NVIDIA GH200 480GB" : name);
    return OK;
}

int nvmlDeviceGetUUID(const struct gpu *gpu, char *text, unsigned size) {
    if (after(gpu->lost_s)) return GPU_IS_LOST;
    write_uuid(gpu, text, size);
    return OK;
}

int nvmlDeviceGetMigMode(const struct gpu *gpu, unsigned *now, unsigned *next) {
    *now = *next = mig || gpu->index == mig_of;
    return OK;
}

int nvmlDeviceGetEnforcedPowerLimit(const struct gpu *gpu, unsigned *milliwatts) {
    if (after(gpu->lost_s)) return GPU_IS_LOST;
    *milliwatts = 700000;
    return OK;
}

struct temperature { unsigned version, sensor; int celsius; };

int nvmlDeviceGetTemperatureV(const struct gpu *gpu, struct temperature *temperature) {
    if (after(gpu->lost_s)) return GPU_IS_LOST;
    temperature->celsius = 40 + gpu->index;
    return OK;
}

int nvmlDeviceGetCurrentClocksEventReasons(const struct gpu *gpu, unsigned long long *mask) {
    if (after(gpu->lost_s)) return GPU_IS_LOST;
    *mask = clock_reasons;
    return OK;
}

int nvmlDeviceGetPowerUsage(const struct gpu *gpu, unsigned *milliwatts) {
    if (after(gpu->lost_s)) return GPU_IS_LOST;
    if (no_power) return NOT_SUPPORTED;
    /* A real meter is never still: a milliwatt up or down at every update. */
    *milliwatts = draw(gpu) * 1e3 + (long long)(counted_until(gpu) / (update_s > 0 ? update_s : 1e-3)) % 7;
    return OK;
}

int nvmlDeviceGetTotalEnergyConsumption(const struct gpu *gpu, unsigned long long *millijoules) {
    if (after(gpu->lost_s)) return GPU_IS_LOST;
    if (no_counter) return NOT_SUPPORTED;
    double watts = draw(gpu), from = after(gpu->reset_s) ? gpu->reset_s : 0, counted = counted_until(gpu) - from;
    if (strstr(name, "GH200")) watts += module_watts;
    *millijoules = (after(gpu->reset_s) ? 0 : 5e9) + (counted > 0 ? counted : 0) * watts * scale * 1e3;
    return OK;
}

static int fill(const struct gpu *gpu, struct field_value *asked) {
    struct timespec busy = {slow_ms / 1000, slow_ms % 1000 * 1000000L};
    if (slow_ms) nanosleep(&busy, NULL);
    if (asked->field == ENERGY) {
        asked->type = 3;
        return nvmlDeviceGetTotalEnergyConsumption(gpu, &asked->value.large);
    }
    int instant = asked->field == POWER_INSTANT;
    if ((!instant && asked->field != POWER_AVERAGE) || (instant && no_instant)) return NOT_SUPPORTED;
    if (asked->scope == SCOPE_GPU ? no_gpu_scope : asked->scope != SCOPE_MODULE || no_module_scope)
        return NOT_SUPPORTED;
    asked->type = 1;
    int status = nvmlDeviceGetPowerUsage(gpu, &asked->value.small);
    if (asked->scope == SCOPE_MODULE) asked->value.small += module_watts * 1e3;
    return status;
}

int nvmlDeviceGetFieldValues(const struct gpu *gpu, int count, struct field_value *asked) {
    for (int i = 0; i < count; i++) {
        asked[i].value.large = 0xdeadbeef; /* what a careless reader would take for a figure */
        asked[i].timestamp_us = seconds(CLOCK_REALTIME) * 1e6;
        asked[i].status = fill(gpu, &asked[i]);
    }
    return OK;
}
