/* What a Cortex-M does before main: the vectors, the FPU, then newlib's own start with semihosting. */
#include <stdint.h>

extern uint32_t __stack;
void _start(void);

void reset(void)
{
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* CPACR: coprocessors 10 and 11 */
    __asm__ volatile("dsb\n\tisb");
    _start();
}

static void halt(void)
{
    for (;;) {}
}

__attribute__((section(".vectors"), used)) static void *const vectors[16] = {
    &__stack, (void *)reset, (void *)halt, (void *)halt, (void *)halt, (void *)halt, (void *)halt
};
