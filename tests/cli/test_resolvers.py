from transfer_learning.cli.resolvers import folder_name, run_id


def test_names_of_folders_are_readable_and_bounded():
    assert folder_name("model=basic_cnn,data.augment=true") == "model=basic_cnn,data.augment=true"
    here, there = (folder_name(f"model.weights=../{folder}/w.pth,model.dense=[512]") for folder in ("a b", "c"))
    assert here.startswith("model.weights=w.pth,model.dense=-512-") and here[:-8] == there[:-8] and here != there
    assert folder_name("") == "defaults"
    long = [folder_name("x" * 400 + last) for last in "ab"]
    assert long[0] != long[1] and max(map(len, long)) <= 200


def test_ids_of_runs_are_bounded_and_different_for_each_job_of_each_sweep():
    folders = [
        "/a/sweep/lr=0.1",
        "/a/sweep/lr=0,1",
        "/a/other/lr=0.1",
        *(f"/a/sweep/{'x' * 200}{last}" for last in "yz"),
    ]
    ids = [run_id(folder) for folder in folders]
    assert len(set(ids)) == len(ids) and all(len(each) <= 109 for each in ids)
    assert all(each.replace("-", "").replace("_", "").isalnum() for each in ids)
    assert run_id("/moved/sweep/lr=0.1") == ids[0] and ids[0].startswith("sweep-lr-0-1-")
