/* $done */
static void $name(const $values *in, $acc *I)
{
    $start
    for (int32_t s = 0; s < $size; s++) {
        const $value value = ${cast}in[s];
        if (value != 0) {
            $locate
            ${name}_add($at, value, I);
        }
    }
    $finish
}

