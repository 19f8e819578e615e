/* $about */
static void $name($arguments, float *out)
{
    memset(out, 0, $size * sizeof *out);
    $lines
}

