// The emulated GPU's threads, memory and launches. The test puts the kernels in front of this file and
// the list of their names, REGISTRY, in its place.

#include <csetjmp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include <utility>

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace {

const u32 MOST_THREADS = 1024;
const size_t STACK = 64 << 10;

enum State { READY, IN_WARP, IN_BLOCK, ENDED };

// A thread of the block. The fiber behind it starts once and then serves one block after another.
struct Fiber {
    jmp_buf place;
    ucontext_t start;
    State state;
    bool has_started;
    u32 turn;
};

Fiber fibers[MOST_THREADS];
u64 lanes[MOST_THREADS / 32][2][32];
jmp_buf scheduler;
u32 current, launches;
const char *kernel = "none";
void (*body)(void **);
void **arguments;

[[noreturn]] void fail(const char *what)
{
    fprintf(stderr, "emulated GPU: kernel %s, block %u %u, thread %u: %s\n", kernel, blockIdx.x, blockIdx.y, current,
            what);
    abort();
}

void on_signal(int signal)
{
    fail(signal == SIGILL ? "misaligned or undefined operation" : "access beyond a buffer");
}

void to_scheduler(State state)
{
    fibers[current].state = state;
    if (!_setjmp(fibers[current].place))
        _longjmp(scheduler, 1);
}

void serve()
{
    for (;;) {
        body(arguments);
        to_scheduler(ENDED);
    }
}

void resume(u32 thread)
{
    current = thread;
    threadIdx = {thread, 0, 0};
    if (_setjmp(scheduler))
        return;
    Fiber &fiber = fibers[thread];
    if (fiber.has_started)
        _longjmp(fiber.place, 1);
    fiber.has_started = true;
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp =
        mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    fiber.start.uc_stack.ss_size = STACK;
    makecontext(&fiber.start, serve, 0);
    setcontext(&fiber.start);
}

// How many threads of a range are in a state.
u32 count(u32 from, u32 to, State state)
{
    u32 sum = 0;
    for (u32 thread = from; thread < to; thread++)
        sum += fibers[thread].state == state;
    return sum;
}

// Runs a warp until all its threads have ended or wait for the block.
void run_warp(u32 first, u32 end, bool backwards)
{
    for (;;) {
        for (u32 i = first; i < end; i++) {
            u32 thread = backwards ? first + end - 1 - i : i;
            if (fibers[thread].state == READY)
                resume(thread);
        }
        u32 waiting = count(first, end, IN_WARP);
        if (waiting == 0)
            return;
        if (waiting + count(first, end, ENDED) != end - first)
            fail("some lanes wait for the warp and some for the block");
        for (u32 thread = first; thread < end; thread++)
            if (fibers[thread].state == IN_WARP)
                fibers[thread].state = READY;
    }
}

void run_block(u32 threads, bool backwards)
{
    for (u32 thread = 0; thread < threads; thread++) {
        fibers[thread].state = READY;
        fibers[thread].turn = 0;
    }
    while (count(0, threads, ENDED) < threads) {
        for (u32 i = 0; i < threads / 32; i++) {
            u32 warp = backwards ? threads / 32 - 1 - i : i;
            run_warp(warp * 32, warp * 32 + 32, backwards);
        }
        for (u32 thread = 0; thread < threads; thread++)
            if (fibers[thread].state == IN_BLOCK)
                fibers[thread].state = READY;
    }
}

template <auto KERNEL, class... A, size_t... I>
void call(void (*)(A...), void **values, std::index_sequence<I...>)
{
    KERNEL(*(A *)values[I]...);
}

template <auto KERNEL, class... A> u32 count_of(void (*)(A...)) { return sizeof...(A); }

template <auto KERNEL, class... A> auto with_arguments(void (*kernel)(A...), void **values)
{
    call<KERNEL>(kernel, values, std::index_sequence_for<A...>());
}

template <auto KERNEL> void run(void **values) { with_arguments<KERNEL>(KERNEL, values); }

struct Entry {
    const char *name;
    void (*run)(void **);
    u32 arguments;
};

#define KERNEL(NAME) {#NAME, run<NAME>, count_of<NAME>(NAME)},
const Entry entries[] = {
    REGISTRY
};

} // namespace

void wait_for_block() { to_scheduler(IN_BLOCK); }
void wait_for_warp() { to_scheduler(IN_WARP); }

const u64 *exchange(u64 bits)
{
    // Two places in turn: nobody gives again before all have read what was given before.
    u64 *given = lanes[current / 32][fibers[current].turn++ % 2];
    given[current % 32] = bits;
    wait_for_warp();
    return given;
}

// Memory whose end, rounded up to 16 bytes, is the end of what can be reached.
extern "C" __attribute__((visibility("default"))) void *emulated_alloc(size_t bytes)
{
    size_t page = sysconf(_SC_PAGESIZE), whole = (bytes + 15) / 16 * 16;
    size_t reach = (whole + page - 1) / page * page;
    u8 *start = (u8 *)mmap(nullptr, reach + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED || mprotect(start + page, reach, PROT_READ | PROT_WRITE) != 0)
        return nullptr;
    u8 *first = start + page + reach - whole;
    memset(first + bytes, 0xa5, whole - bytes);
    return first;
}

// Gives memory back, and says whether what lies between its end and the guard is as it was.
extern "C" __attribute__((visibility("default"))) bool emulated_free(u8 *first, size_t bytes)
{
    size_t page = sysconf(_SC_PAGESIZE), whole = (bytes + 15) / 16 * 16;
    size_t reach = (whole + page - 1) / page * page;
    bool is_whole = true;
    for (size_t i = bytes; i < whole; i++)
        is_whole &= first[i] == 0xa5;
    munmap(first + whole - reach - page, reach + 2 * page);
    return is_whole;
}

// Runs a kernel. False if there is none of this name with so many arguments.
extern "C" __attribute__((visibility("default"))) bool emulated_launch(
    const char *name, const u32 grid[2], u32 threads, void **values, u32 count)
{
    for (const Entry &entry : entries) {
        if (strcmp(entry.name, name) != 0 || entry.arguments != count)
            continue;
        if (threads == 0 || threads > MOST_THREADS || threads % 32 != 0)
            return false;
        if (launches++ == 0)
            for (int signal : {SIGILL, SIGSEGV, SIGBUS})
                std::signal(signal, on_signal);
        kernel = name;
        body = entry.run;
        arguments = values;
        blockDim = {threads, 1, 1};
        gridDim = {grid[0], grid[1], 1};
        for (u32 y = 0; y < grid[1]; y++)
            for (u32 x = 0; x < grid[0]; x++) {
                blockIdx = {x, y, 0};
                run_block(threads, launches % 2 == 0);
            }
        return true;
    }
    return false;
}
