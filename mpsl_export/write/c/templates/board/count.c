/* How many instructions steps take on a Cortex-M in qemu with -icount shift=0: each lasts one
 * nanosecond there, and SysTick counts 25 million ticks a second, so that a tick is 40 of them. */
#include "model.h"

#include <stdio.h>

$first
$events
#define SYST_CSR (*(volatile uint32_t *)0xE000E010u)
#define SYST_RVR (*(volatile uint32_t *)0xE000E014u)
#define SYST_CVR (*(volatile uint32_t *)0xE000E018u)

static ${prefix}_state state;

int main(void)
{
    ${prefix}_score scores[${PREFIX}_CLASSES];
    SYST_RVR = 0xFFFFFFu;
    SYST_CVR = 0;
    SYST_CSR = 5;
    for (int t = 0; t < $steps; t++) {
        if (t % $window == 0) ${prefix}_reset(&state);
        const uint32_t before = SYST_CVR;
        const int code = ${prefix}_step(&state, events + first[t], first[t + 1] - first[t], scores);
        printf("%lu\n", (unsigned long)((before - SYST_CVR) & 0xFFFFFFu));
        if (code != ${PREFIX}_OK) return 1;
    }
    return 0;
}
