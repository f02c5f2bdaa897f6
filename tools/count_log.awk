# Counts the test cases in a suite's log: prints "passed failed skipped". Knows cmocka's own format
# and lines "ok ..." / "not ok ..."; a suite that prints neither is one case, judged by its exit
# code. Cases that were announced and never ended count as failed. -v code=EXIT
/\[ RUN      \] /     { running = 1; next }
running && /\[       OK \] /  { passed++; running = 0; next }
running && /\[  FAILED  \] /  { failed++; running = 0; next }
running && /\[  SKIPPED \] /  { skipped++; running = 0; next }
/\[==========\] Running [0-9]+ test/ {
    line = $0
    sub(/.*Running /, "", line)
    announced += line + 0
    next
}
/^ok( |$)/     { if ($0 ~ /# [Ss][Kk][Ii][Pp]/) skipped++; else passed++; plain++; next }
/^not ok( |$)/ { failed++; plain++; next }
END {
    missing = announced - (passed + failed + skipped - plain)
    if (missing > 0) failed += missing
    if (code != 0 && !failed) failed++
    if (code == 0 && !(passed + failed + skipped)) passed++
    print passed + 0, failed + 0, skipped + 0
}
