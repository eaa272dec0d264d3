/* Ctrl-C: the first asks the work to stop, the second ends the program. */
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

volatile int cli_cancel;

static void on_signal(int number)
{
    cli_cancel = 1;
    /* The next one takes the system's default: the program ends. */
    signal(number, SIG_DFL);
}

static void install(int number)
{
    struct sigaction a;

    memset(&a, 0, sizeof a);
    a.sa_handler = on_signal;
    sigemptyset(&a.sa_mask);
    /* No SA_RESTART: waiting for a line ends, too. */
    sigaction(number, &a, NULL);
}

void signals_install(void)
{
    signal(SIGPIPE, SIG_DFL);
    signal(SIGXFSZ, SIG_IGN); /* a file beyond the limit (ulimit -f) is an error of writing, and is told */
    signals_rearm();
}

void signals_rearm(void)
{
    cli_cancel = 0;
    install(SIGINT);
    install(SIGTERM);
}
