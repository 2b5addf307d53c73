"""The optional decoders give the frames that PyAV gives, or say why they cannot."""



