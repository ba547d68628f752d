"""`vllm bench serve` itself: the command of vLLM's CPU package looks for a package of another name.

Run by the rival's interpreter; takes the words of `vllm bench serve`.
"""

from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser

if __name__ == "__main__":
    parser = FlexibleArgumentParser()
    add_cli_args(parser)
    main(parser.parse_args())
