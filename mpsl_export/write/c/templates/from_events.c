/* $done; an input with several events comes up once, with their sum. */
static void $name(const ${prefix}_event *events, uint32_t n, $values *in, $acc *I)
{
    $start
    for (uint32_t k = 0; k < n; k++) {
        const int32_t s = $event;
        const $value value = in[s];
        if (value != 0) {
            in[s] = 0;
            $locate
            ${name}_add($at, value, I);
        }
    }
    $finish
}

