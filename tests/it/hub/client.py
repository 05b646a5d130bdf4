"""The real client, asked for one thing: prints what it got, or the name of the exception it raised."""
import sys

import huggingface_hub

ask, repository, revision, *rest = sys.argv[1:]
try:
    if ask == "snapshot":
        print(huggingface_hub.snapshot_download(repository, revision=revision, local_dir=rest[0]))
    elif ask == "file":
        print(huggingface_hub.hf_hub_download(repository, rest[0], revision=revision))
    elif ask == "tree":
        for entry in huggingface_hub.HfApi().list_repo_tree(repository, revision=revision, recursive=True):
            print(entry.path)
    elif ask == "expanded":
        for entry in huggingface_hub.HfApi().list_repo_tree(repository, revision=revision, expand=True):
            print(entry.path, entry.last_commit.oid)
    elif ask == "paths":
        for entry in huggingface_hub.HfApi().get_paths_info(repository, rest, revision=revision):
            print(entry.path, entry.size, entry.lfs.sha256 if entry.lfs else entry.blob_id)
    elif ask == "refs":
        refs = huggingface_hub.HfApi().list_repo_refs(repository)
        print(*[ref.name for ref in refs.branches + refs.tags])
    elif ask == "search":
        print(*[model.id for model in huggingface_hub.HfApi().list_models(search=repository, limit=2)])
    elif ask == "author":
        print(*[model.id for model in huggingface_hub.HfApi().list_models(author=repository)])
    elif ask == "info":
        info = huggingface_hub.HfApi().model_info(repository, revision=revision, files_metadata=True)
        print(info.sha, info.card_data.license, info.config["model_type"], sum(file.size for file in info.siblings))
except Exception as error:
    print(type(error).__name__)
