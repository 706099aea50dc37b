# Completion of onvm for fish.
function __onvm_complete
    set -lx _ONVM_COMPLETE complete_fish
    set -lx _TYPER_COMPLETE_FISH_ACTION $argv[1]
    set -lx _TYPER_COMPLETE_ARGS (commandline -cp)
    onvm 2>/dev/null
end
complete --command onvm --no-files --arguments "(__onvm_complete get-args)" --condition "__onvm_complete is-args"
