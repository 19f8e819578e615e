/* $about
 *
 *     out[c, y, x] = sum of s[c, $row_seen, $column_seen]$over
 *
 * turned round: one input adds itself to the windows that it lies in. */
static void ${name}_add(int32_t c, int32_t row, int32_t column, $value value, $acc *I)
{
    const int32_t above = $above, beside = $beside;
    for (int32_t y = $y_first; y < $rows && y * $down <= $row; y++)
        for (int32_t x = $x_first; x < $columns && x * $right <= $column; x++)
            I[(y * $columns + x) * $filters + c] = $sum;
}

