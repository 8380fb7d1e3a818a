"""Networks on the fastest CPU kernels (`kernels.blocked`).

``program``  what they can compute, and the weights as they read them
``plan``     for one image size: which nodes one call computes, where tensors lie, and how it is run
``homes``    in whose memory tensors stand: computed in place, concatenated without a copy
``calls``    from the nodes that are computed together to the operations' calls
"""
