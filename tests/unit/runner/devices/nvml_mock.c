/*
 * A libnvidia-ml.so.1 for tests. What it shows is read anew at each call from the file that NVML_MOCK names:
 *
 *     driver NAME                          the driver's version; without this line it is not loaded
 *     gpu STATE UUID TOTAL USED BUSY NAME  STATE is ok, lost or unified (no memory of its own); bytes; percent
 *     mig TOTAL USED UUID                  a slice of the GPU before
 *     process PID BYTES                    of the GPU before
 *
 * Signatures and codes are those of NVIDIA's nvml.h; functions that are left out are "not found" to nvidia-ml-py.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15 };
enum { MOST = 8 };

typedef unsigned long long bytes;
typedef struct { bytes total, free, used; } memory_info;
typedef struct { unsigned gpu, memory; } utilization;
typedef struct { unsigned pid; bytes used; unsigned gpu_instance, compute_instance; } process_info;

typedef struct {
    char state[16], uuid[80], name[80];
    bytes total, used;
    unsigned busy, slices, processes;
    int is_slice;
    unsigned pids[MOST];
    bytes held[MOST];
    unsigned slice_at[MOST];
} device;

static device devices[64];
static unsigned gpus[MOST], gpu_count, device_count;
static char driver[40];

static int look(void) {
    const char *path = getenv("NVML_MOCK");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[256];
    gpu_count = device_count = 0;
    driver[0] = 0;
    while (file && fgets(line, sizeof line, file)) {
        device *gpu = gpu_count ? &devices[gpus[gpu_count - 1]] : NULL, *next = &devices[device_count];
        memset(next, 0, sizeof *next);
        if (sscanf(line, "driver %39s", driver) == 1) continue;
        if (sscanf(line, "gpu %15s %79s %llu %llu %u %79[^\n]", next->state, next->uuid, &next->total, &next->used,
                   &next->busy, next->name) == 6) {
            gpus[gpu_count++] = device_count++;
        } else if (gpu && sscanf(line, "mig %llu %llu %79s", &next->total, &next->used, next->uuid) == 3) {
            next->is_slice = 1;
            strcpy(next->state, "ok");
            snprintf(next->name, sizeof next->name, "%.60s slice", gpu->name);
            gpu->slice_at[gpu->slices++] = device_count++;
        } else if (gpu && sscanf(line, "process %u %llu", &gpu->pids[gpu->processes], &gpu->held[gpu->processes]) == 2) {
            gpu->processes++;
        }
    }
    if (file) fclose(file);
    return driver[0] ? SUCCESS : DRIVER_NOT_LOADED;
}

static int use(void *handle, device **found) {
    int code = look();
    unsigned at = (unsigned)(size_t)handle - 1;
    if (code != SUCCESS) return code;
    if (at >= device_count || !strcmp(devices[at].state, "lost")) return GPU_IS_LOST;
    *found = &devices[at];
    return SUCCESS;
}

#define USE(handle) device *d; int code = use(handle, &d); if (code != SUCCESS) return code

int nvmlInitWithFlags(unsigned flags) { (void)flags; return look(); }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { return code == DRIVER_NOT_LOADED ? "Driver Not Loaded" : "an error"; }

int nvmlSystemGetDriverVersion(char *text, unsigned length) {
    int code = look();
    snprintf(text, length, "%s", driver);
    return code;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    int code = look();
    *count = gpu_count;
    return code;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    int code = look();
    if (code != SUCCESS || index >= gpu_count) return code != SUCCESS ? code : NOT_FOUND;
    *handle = (void *)(size_t)(gpus[index] + 1);
    return strcmp(devices[gpus[index]].state, "lost") ? SUCCESS : GPU_IS_LOST;
}

int nvmlDeviceGetName(void *handle, char *text, unsigned length) {
    USE(handle);
    snprintf(text, length, "%s", d->name);
    return SUCCESS;
}

int nvmlDeviceGetUUID(void *handle, char *text, unsigned length) {
    USE(handle);
    snprintf(text, length, "%s", d->uuid);
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(void *handle, memory_info *memory) {
    USE(handle);
    memory->total = d->total;
    memory->used = d->used;
    memory->free = d->total - d->used;
    return strcmp(d->state, "unified") ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetUtilizationRates(void *handle, utilization *rates) {
    USE(handle);
    rates->gpu = d->busy;
    rates->memory = 0;
    return d->is_slice ? NOT_SUPPORTED : SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, process_info *list) {
    USE(handle);
    unsigned room = *count;
    *count = d->processes;
    if (room < d->processes) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < d->processes; i++) list[i] = (process_info){d->pids[i], d->held[i], 0, 0};
    return SUCCESS;
}

int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) {
    USE(handle);
    *current = *pending = d->slices > 0;
    return SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *count) {
    USE(handle);
    *count = MOST;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned index, void **slice) {
    USE(handle);
    if (index >= d->slices) return NOT_FOUND;
    *slice = (void *)(size_t)(d->slice_at[index] + 1);
    return SUCCESS;
}
