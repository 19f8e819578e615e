/* $about: out = scale in. */
static void $name(const float *in, float *out)
{
    $loop
}

