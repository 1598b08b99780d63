# Completion for the tools of framepipe in fish. It asks the completion of bash, so that
# there is one list of flags. Source it, or put it where fish looks, as TOOL.fish.

# Where completion.bash is: in the clone, or where pipeline.sh install puts it.
set -l here (realpath (status dirname))
set -g __framepipe_bash $here/completion.bash $here/../../bash-completion/completions/tunread

function __framepipe
    set -l words (commandline -opc) (commandline -ct)
    for file in $__framepipe_bash
        test -e $file; or continue
        bash -c '. "$1"; shift
            _framepipe_files() { echo @files; }
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); _framepipe "$1"
            [ ${#COMPREPLY[@]} -eq 0 ] || printf "%s\n" "${COMPREPLY[@]}"' bash $file $words | while read -l word
            test $word = @files; and __fish_complete_path $words[-1]; or echo $word
        end
        return
    end
end

for tool in bytehist framepcap pipeline.sh quotabill quotagate tundivert tunread tunwrite
    complete -c $tool -f -k -a '(__framepipe)'
end
