#compdef bytehist framepcap pipeline.sh quotabill quotagate tundivert tunread tunwrite
# Completion for the tools of framepipe in zsh. It asks the completion of bash, so that
# there is one list of flags. Source it after compinit, or put it where zsh looks, as
# _framepipe.

# Where completion.bash is: in the clone, or where pipeline.sh install puts it.
typeset -g _framepipe_bash=(${${(%):-%x}:A:h}/{completion.bash,../../bash-completion/completions/tunread}(N))

_framepipe() {
	local -a offered
	offered=(${(f)"$(bash -c '. "$1"; shift
		_framepipe_files() { echo @files; }
		COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); _framepipe "$1"
		[ ${#COMPREPLY[@]} -eq 0 ] || printf "%s\n" "${COMPREPLY[@]}"' bash $_framepipe_bash[1] "${(@)words[1,CURRENT]}")"})
	if [[ $offered = @files ]]; then
		compset -P '-*='
		_files
		return
	fi
	compadd -S '' -- ${(M)offered:#*=}
	compadd -- ${offered:#*=}
}

if [[ $zsh_eval_context[-1] = loadautofunc ]]; then
	_framepipe "$@"
else
	compdef _framepipe bytehist framepcap pipeline.sh quotabill quotagate tundivert tunread tunwrite
fi
