"""The run folder: the names of its files, and their writing and reading."""

from unperturbed.runs.files import BEST as BEST
from unperturbed.runs.files import CHECKPOINT as CHECKPOINT
from unperturbed.runs.files import CONFIG as CONFIG
from unperturbed.runs.files import METRICS as METRICS
from unperturbed.runs.files import MODEL as MODEL
from unperturbed.runs.files import PREVIOUS as PREVIOUS
from unperturbed.runs.files import RESULT as RESULT
from unperturbed.runs.files import FolderLostError as FolderLostError
from unperturbed.runs.files import append_jsonl as append_jsonl
from unperturbed.runs.files import evaluation_folder as evaluation_folder
from unperturbed.runs.files import finite as finite
from unperturbed.runs.files import is_free as is_free
from unperturbed.runs.files import read_jsonl as read_jsonl
from unperturbed.runs.files import read_yaml as read_yaml
from unperturbed.runs.files import write_atomically as write_atomically
from unperturbed.runs.files import write_json as write_json
from unperturbed.runs.files import write_jsonl as write_jsonl
from unperturbed.runs.files import write_text as write_text
from unperturbed.runs.files import write_yaml as write_yaml
