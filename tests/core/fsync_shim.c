/* Counts fsync and fdatasync of a process that preloads it, lets the next ones fail as a dying disk does, and lets each
   take longer, as on an SD card. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <time.h>

static atomic_long syncs;
static atomic_long to_fail;
static atomic_long delay;

long shim_syncs(void) { return atomic_load(&syncs); }

void shim_fail_next(long count) { atomic_store(&to_fail, count); }

void shim_delay(long microseconds) { atomic_store(&delay, microseconds); }

static int pass(const char *name, int fd)
{
    atomic_fetch_add(&syncs, 1);
    if (atomic_load(&to_fail) > 0) {
        atomic_fetch_sub(&to_fail, 1);
        errno = EIO;
        return -1;
    }
    long wait = atomic_load(&delay);
    if (wait > 0)
        nanosleep(&(struct timespec){wait / 1000000, wait % 1000000 * 1000}, NULL);
    return ((int (*)(int))dlsym(RTLD_NEXT, name))(fd);
}

int fsync(int fd) { return pass("fsync", fd); }

int fdatasync(int fd) { return pass("fdatasync", fd); }
