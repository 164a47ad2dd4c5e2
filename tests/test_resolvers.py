from transfer_learning.resolvers import folder_name


def test_folder_names_are_readable_and_bounded():
    assert folder_name(3, "model=basic_cnn,data.augment=true") == "3_model=basic_cnn,data.augment=true"
    assert folder_name(0, "model.weights=../a b/w.pth,model.dense=[512]") == "0_model.weights=..-a-b-w.pth,model.dense=-512-"
    long = [folder_name(0, "x" * 400 + last) for last in "ab"]
    assert long[0] != long[1] and max(map(len, long)) <= 200
