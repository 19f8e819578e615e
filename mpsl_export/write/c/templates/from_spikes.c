/* $done */
static void $name(const $index *spikes, int32_t n, $acc *I)
{
    $start
    for (int32_t k = 0; k < n; k++) {
        const int32_t s = $spike;
        $locate
        ${name}_add($at, 1, I);
    }
    $finish
}

