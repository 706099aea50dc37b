# Completion of onvm for bash.
_onvm()
{
	local IFS=$'\n'
	COMPREPLY=($(COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD _ONVM_COMPLETE=complete_bash "$1" 2>/dev/null))
}
complete -o bashdefault -o default -F _onvm onvm
