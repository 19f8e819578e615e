/* $about
 *
 *     $equations */
static $returns ${name}_step($step_arguments)
{
    $lines
}

static $result $name($arguments)
{
    $begin
    $loop
    $end
}

